"""FastAPI around ONNX Runtime as most people write it."""

from fastapi import FastAPI
from plain_encoder import PlainEncoder  # type: ignore[import-not-found]  # beside this file
from pydantic import BaseModel

encoder = PlainEncoder()
app = FastAPI()


class Body(BaseModel):
    """Histories as rows of the item table."""

    histories: list[list[int]]


@app.post("/encode")
def encode(body: Body) -> dict[str, list[list[float]]]:
    """Embeddings of the histories."""
    return {"embeddings": encoder.encode(body.histories).tolist()}
