"""What scores the parts of a file: a service, processes of this machine, or a Ray cluster."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from persona.contract import ItemId, UnknownItems
from persona.results import Encoded
from persona.scoring.parts import Part

FormatName = Literal["parquet", "jsonl", "csv", "npy"]


@dataclass(frozen=True)
class Plan:
    """What is wanted of every part."""

    format: FormatName
    id_type: Any  # Arrow type
    kept: Any  # Arrow schema of the columns that are passed through
    model: str | None = None  # None: the default model
    version: str | None = None  # None: the newest
    unknown_items: UnknownItems = "token"
    float16: bool = False


@dataclass(frozen=True)
class ModelFacts:
    """Which model scores."""

    name: str
    version: str
    checksum: str  # SHA-256 of the artifact's manifest; empty where a service does not tell
    width: int  # numbers of an embedding


@dataclass(frozen=True)
class Counts:
    """What became of rows; `rows` is always `scored + rejected`."""

    rows: int = 0
    scored: int = 0
    rejected: int = 0
    unknown: int = 0  # clicks of unknown items
    truncated: int = 0  # users with more clicks than the model reads
    tokens: int = 0  # that the model read
    computed_tokens: int = 0  # the same with padding; 0 where it is unknown

    def __add__(self, other: "Counts") -> "Counts":
        mine, others = vars(self), vars(other)
        return Counts(**{name: mine[name] + others[name] for name in mine})


@dataclass(frozen=True, eq=False)
class ScoredPart:
    """A part as it is written."""

    number: int
    counts: Counts
    files: dict[str, bytes]  # by name


class Encoder(Protocol):
    """Turns histories into embeddings."""

    computed_tokens: int  # so far, padding included; 0 where it is unknown

    def encode(self, histories: Sequence[Sequence[ItemId]]) -> Encoded:
        """Encodes each history.

        Raises:
            InvalidRequest: a history is refused; `history` says which.
            RequestTooLarge: fewer or shorter histories may succeed.
            DeadlineExceeded: fewer or shorter histories may succeed.
        """


class Scorer(Protocol):
    """Scores parts, several at a time."""

    @property
    def at_once(self) -> int:
        """How many parts keep it busy; known after `start`."""

    def start(self, plan: Plan) -> ModelFacts:
        """Gets ready to score parts as the plan says.

        Raises:
            PersonaError: there is no such model, or it cannot be reached.
        """

    def submit(self, part: Part) -> "Future[ScoredPart | Exception]":
        """Scores a part; the future has an error as its result where that fails."""

    def close(self) -> None:
        """Stops what `start` has started, at once."""
