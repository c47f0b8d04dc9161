"""Python client of the Persona service, and scoring of whole files through it.

    with Client("http://127.0.0.1:8000") as client:
        encoded = client.encode([["frontpage", "news"], []])
        encoded.embeddings  # (2, D) float32

Importing this package imports neither PyTorch, ONNX Runtime nor FastAPI.
"""

from client.errors import (
    BodyTooLarge,
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    FileError,
    InvalidRequest,
    ModelChanged,
    ModelNotFound,
    NoHistories,
    NotReady,
    Overloaded,
    ServerError,
    UnexpectedAnswer,
)
from client.http import AsyncClient, Client
from client.results import (
    CandidateAttention,
    Encoded,
    FullAttention,
    ItemId,
    Model,
    PooledAttention,
    Scored,
    ScoredUser,
    User,
)
from client.scoring import ScoreReport, score_file
from client.wire import AttentionDetail, History, Limits, UnknownItems

__all__ = [
    "AsyncClient",
    "AttentionDetail",
    "BodyTooLarge",
    "CandidateAttention",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Encoded",
    "FileError",
    "FullAttention",
    "History",
    "InvalidRequest",
    "ItemId",
    "Limits",
    "Model",
    "ModelChanged",
    "ModelNotFound",
    "NoHistories",
    "NotReady",
    "Overloaded",
    "PooledAttention",
    "ScoreReport",
    "Scored",
    "ScoredUser",
    "ServerError",
    "UnexpectedAnswer",
    "UnknownItems",
    "User",
    "score_file",
]
