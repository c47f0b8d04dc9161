"""Talks to a Persona service over HTTP.

with Client("http://127.0.0.1:8000") as client:
    encoded = client.encode([["frontpage", "news"], []])
    encoded.embeddings  # (2, D) float32

Importing this package imports neither PyTorch, ONNX Runtime, pyarrow nor FastAPI.
"""

from persona.client.answers import ModelCard, ModelState
from persona.client.errors import ChangeRefused, ConnectionFailed, ServerError, UnexpectedAnswer
from persona.client.http import AsyncClient, Client
from persona.client.options import Limits
from persona.results import ModelChanged

__all__ = [
    "AsyncClient",
    "ChangeRefused",
    "Client",
    "ConnectionFailed",
    "Limits",
    "ModelCard",
    "ModelChanged",
    "ModelState",
    "ServerError",
    "UnexpectedAnswer",
]
