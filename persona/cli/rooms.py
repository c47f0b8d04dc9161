"""Finds what a verb is missing: a folder of the checkout, or a package of an extra."""

from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "data": ["model"],
    "train": ["model"],
    "evaluate": ["model"],
    "export": ["model", "export"],
    "serve": ["service"],
    "keys": ["service"],
}
# A user's own module may have the same name as a room. Ours contains this file or folder.
SIGNS = {"model": "clicks", "export": "write.py", "service": "protocols"}
EXTRAS = {
    "engine": "onnxruntime pydantic",
    "files": "duckdb pyarrow",
    "index": "faiss",
    "serve": "fastapi httptools limits prometheus_client pydantic_settings uvicorn uvloop",
    "otel": "opentelemetry",
    "signed": "cryptography",
    "train": "jinja2 lightning matplotlib onnx onnxscript torch",
    "ray": "ray",
}


def missing_room(verb: str) -> str | None:
    """One line about the folder that the verb is missing, or about the module that hides it."""
    for room in ROOMS.get(verb, []):
        spec = find_spec(room)
        folders = list(spec.submodule_search_locations or []) if spec else []
        if any((Path(folder) / SIGNS[room]).exists() for folder in folders):
            continue
        if spec is None or not (ROOT / room / SIGNS[room]).exists():
            return f"`persona {verb}` runs from a checkout or the image; see the README"
        hiding = spec.origin or ", ".join(folders)
        return f"{hiding} hides Persona's own `{room}`; run `persona {verb}` in another folder"
    return None


def hint(module: str) -> str | None:
    """One line that says how to install the module; None if it belongs to no extra."""
    package = module.split(".", maxsplit=1)[0]
    extra = next((name for name, packages in EXTRAS.items() if package in packages.split()), None)
    if extra is None:
        return None
    checkout = (ROOT / "pyproject.toml").exists()
    wanted = f"-e '.[{extra}]'" if checkout else f"'persona-encoder[{extra}]'"
    return f"this needs {package}: pip install {wanted}"
