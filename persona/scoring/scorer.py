"""What scores the parts of a file: a service, processes of this machine, or a Ray cluster."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from persona.columns import ColumnKind
from persona.contract import UnknownItems
from persona.results import Encoded, History, Recommended
from persona.scoring.parts import Part

Histories = Sequence[History]
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
    embeddings: bool = True
    recommend: int | None = None  # items a user
    exclude_seen: bool = False  # from those


@dataclass(frozen=True)
class ModelFacts:
    """Which model scores."""

    name: str
    version: str
    checksum: str  # SHA-256 of the artifact's manifest; empty where a service does not tell
    width: int  # numbers of an embedding
    items: str = ""  # Arrow type of the recommended items, where some are wanted
    reads_time: bool = False  # of every click
    columns: Mapping[str, ColumnKind] = field(default_factory=dict)  # of every click, likewise


@dataclass(frozen=True)
class Counts:
    """What became of rows; `rows` is always `scored + rejected`."""

    rows: int = 0
    scored: int = 0
    rejected: int = 0
    unknown: int = 0  # clicks of unknown items
    truncated: int = 0  # users with more clicks than the model reads
    tokens: int = 0  # that the model read; 0 where it is unknown, and the next as well
    computed_tokens: int = 0  # the same with padding

    def __add__(self, other: "Counts") -> "Counts":
        mine, others = vars(self), vars(other)
        return Counts(**{name: mine[name] + others[name] for name in mine})


@dataclass(frozen=True, eq=False)
class ScoredPart:
    """A part as it is written."""

    number: int
    counts: Counts
    files: dict[str, bytes]  # by name


class Model(Protocol):
    """What answers: `Client` and `Engine` do."""

    def encode(
        self,
        histories: Histories,
        *,
        model: str | None,
        version: str | None,
        unknown_items: UnknownItems,
    ) -> Encoded:
        """The embedding of each history."""

    def recommend(
        self,
        histories: Histories,
        k: int,
        *,
        exclude_seen: bool,
        model: str | None,
        version: str | None,
        unknown_items: UnknownItems,
    ) -> Recommended:
        """The `k` best items for each history."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of some histories: embeddings, recommended items, or both."""

    encoded: Encoded | None
    recommended: Recommended | None

    @property
    def either(self) -> Encoded | Recommended:
        """What both have: the model, its version, and what it used of the histories."""
        (found, *_) = self.parts
        return found

    @property
    def parts(self) -> list[Encoded | Recommended]:
        """What there is of both."""
        return [one for one in (self.encoded, self.recommended) if one is not None]


def ask(model: Model, plan: Plan, histories: Histories) -> Answer:
    """Asks a model for what the plan wants of histories."""
    encoded = recommended = None
    if plan.embeddings:
        encoded = model.encode(
            histories,
            model=plan.model,
            version=plan.version,
            unknown_items=plan.unknown_items,
        )
    if plan.recommend is not None:
        recommended = model.recommend(
            histories,
            plan.recommend,
            exclude_seen=plan.exclude_seen,
            model=plan.model,
            version=plan.version,
            unknown_items=plan.unknown_items,
        )
    return Answer(encoded, recommended)


def item_type(answer: Answer) -> str:
    """The Arrow type of the items in an answer to one history; empty if none are wanted."""
    if answer.recommended is None:
        return ""
    items = answer.recommended.users[0].items
    return "int64" if items and isinstance(items[0], int) else "string"


class Asked(Protocol):
    """A model that is asked for what a plan wants."""

    batch_rows: int  # histories that it is asked for at once, at most
    batch_clicks: int  # of all of them
    tokens: int  # that it read so far; 0 where that is unknown, and the next as well
    computed_tokens: int  # the same with padding

    def answer(self, histories: Histories) -> Answer:
        """Answers for each history.

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
