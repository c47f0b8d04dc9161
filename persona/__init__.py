"""Turns click histories into user embeddings, and shows which clicks the model attended to.

    Client, AsyncClient   send requests to a service over HTTP
    Engine                computes in this process; needs the extra `engine`
    score_file            scores a whole file, through a service, in processes or on Ray

Each name is imported on first use, so that it needs only its own dependencies.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from persona.client import AsyncClient, Client
    from persona.contract import PersonaError
    from persona.engine import Engine
    from persona.scoring import score_file

__all__ = ["AsyncClient", "Client", "Engine", "PersonaError", "__version__", "score_file"]
__version__: str

MODULES = {
    "AsyncClient": "persona.client",
    "Client": "persona.client",
    "Engine": "persona.engine",
    "PersonaError": "persona.contract",
    "score_file": "persona.scoring",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("persona-encoder")
    if name not in MODULES:
        raise AttributeError(f"module 'persona' has no attribute '{name}'")
    return getattr(import_module(MODULES[name]), name)
