"""The models of a folder, in this process: for notebooks, batch jobs, and the service."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from persona.artifact import find_artifacts
from persona.contract import (
    ITEM_ID,
    AttentionDetail,
    Embeddings,
    InvalidRequest,
    ItemId,
    Overloaded,
    Query,
    Result,
    Results,
    Scores,
    UnknownItems,
)
from persona.engine.batcher import RunStats
from persona.engine.limits import Limits
from persona.engine.model import Model
from persona.engine.registry import Registry
from persona.results import (
    CandidateAttention,
    Encoded,
    FullAttention,
    History,
    PooledAttention,
    Scored,
    ScoredUser,
    User,
)

OnRun = Callable[[str, RunStats], None]


class Engine:
    """Answers queries about click histories from trained artifacts.

        engine = Engine.open("artifacts/news")
        engine.encode([["frontpage", "news"]], attention="pooled").embeddings  # (1, D) float32

    `encode`, `score` and `run` compute in the calling thread and may be called from several.
    `submit` computes on the running event loop, in batches with other queries.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.registry = Registry(models)

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        on_run: OnRun = lambda _model, _stats: None,
    ) -> Self:
        """Verifies and opens the newest version of each model in a folder.

        Args:
            folder: of artifacts (`<name>/<version>/`), of one model, or of one version.
            limits: of each query, and of what may wait.
            on_run: called after each run with the model's name and what the run took.

        Raises:
            ArtifactError: there is no artifact, or one is broken; the message names the file.
        """
        found = find_artifacts(Path(folder))
        return cls([Model(path, limits, partial(on_run, path.parent.name)) for path in found])

    def submit(self, query: Query, deadline_s: float) -> asyncio.Future[Results]:
        """Answers a query in batches with others; to be called on the event loop.

        The future fails with DeadlineExceeded after `deadline_s` seconds. Cancelling it takes the
        query out of the queue.

        Raises:
            ModelNotFound: no such model or version.
            InvalidRequest: a value of the query is wrong; the message says where.
            Overloaded: the queue is full.
        """
        return self.registry.find(query.model, query.version).submit(query, deadline_s)

    async def submit_large(self, query: Query, deadline_s: float) -> asyncio.Future[Results]:
        """As `submit`, but the event loop turns while the query is read."""
        found = self.registry.find(query.model, query.version)
        return await found.submit_large(query, deadline_s)

    def refuse_late(self, deadline_s: float) -> None:
        """Refuses a query that nobody has read yet: no model could answer it in time.

        Raises:
            Overloaded: the deadline would pass in the queue of every model.
        """
        refusal: Overloaded | None = None
        for model in self.registry.models:
            try:
                model.refuse_late(deadline_s)
            except Overloaded as error:
                refusal = error
            else:
                return
        if refusal is not None:
            raise refusal

    def run(self, query: Query) -> Results:
        """Answers a query in the calling thread; raises as `submit`."""
        return self.registry.find(query.model, query.version).run(query)

    def encode(
        self,
        histories: Iterable[History],
        *,
        model: str | None = None,
        version: str | None = None,
        attention: AttentionDetail = "none",
        unknown_items: UnknownItems = "token",
    ) -> Encoded:
        """The user embeddings of histories, as `Client.encode` returns them.

        Args:
            histories: each a sequence of item ids from the oldest to the newest click, or a
                mapping `{"id": ..., "items": [...]}` whose id comes back with the result.
            model: its name; by default the default model.
            version: of the model; by default the newest.
            attention: `pooled` for the weights that the embedding is read from, `full` for the
                matrices of every block.
            unknown_items: `token` encodes an unknown item as a click on something unknown, `drop`
                leaves it out, `error` refuses the query.

        Raises:
            ModelNotFound: no such model or version.
            InvalidRequest: a value is wrong; the message says where.
        """
        ids, clicks = _columns(histories)
        want = Embeddings(attention)
        results = self.run(Query(clicks, want, model, version, unknown_items))
        found = self.registry.find(model, version)
        width = found.manifest.architecture.width
        embeddings = np.empty((len(ids), width), np.float32)
        for number, result in enumerate(results.histories):
            embeddings[number] = result.embedding
        users = [_user(*pair) for pair in zip(ids, results.histories, strict=True)]
        return Encoded(results.model, results.version, embeddings, users)

    def score(
        self,
        histories: Sequence[History],
        candidates: Sequence[ItemId] | Sequence[Sequence[ItemId]],
        *,
        model: str | None = None,
        version: str | None = None,
        attention: bool = False,
        unknown_items: UnknownItems = "token",
    ) -> Scored:
        """The scores of candidate items, as `Client.score` returns them.

        `candidates` are item ids for all histories, or a list of them for each history. An unknown
        one has the score NaN. `attention` asks how much each click speaks for each candidate. All
        else is as for `encode`.
        """
        ids, clicks = _columns(histories)
        want = Scores(_lists(candidates, len(ids)), attention)
        results = self.run(Query(clicks, want, model, version, unknown_items))
        users = [_scored_user(*pair) for pair in zip(ids, results.histories, strict=True)]
        return Scored(results.model, results.version, users)


def _columns(
    histories: Iterable[History],
) -> tuple[list[ItemId | None], dict[str, list[list[ItemId]]]]:
    """The ids of histories, and their clicks as columns."""
    ids: list[Any] = []
    clicks: list[list[ItemId]] = []
    for number, history in enumerate(histories):
        items: Any = history
        if isinstance(history, Mapping):
            ids.append(history.get("id"))
            items = history.get("items")
        else:
            ids.append(None)
        clicks.append(_items(items, number))
    return ids, {ITEM_ID: clicks}


def _items(items: Any, number: int) -> list[ItemId]:
    """A list of plain ids; NumPy's are turned into Python's, which match those of the catalogue."""
    if isinstance(items, np.ndarray):
        items = items.tolist()
    if not isinstance(items, Sequence) or isinstance(items, str):
        kind = type(items).__name__
        raise InvalidRequest(f"history {number} is a {kind}, not a list of ids", history=number)
    ids: list[ItemId] = [item.item() if isinstance(item, np.generic) else item for item in items]
    for at, item in enumerate(ids):
        if type(item) is not str and type(item) is not int:
            kind = type(item).__name__
            message = f"history {number}, item {at} is a {kind}, not a string or an integer"
            raise InvalidRequest(message, history=number, click=at)
    return ids


def _lists(
    candidates: Sequence[ItemId] | Sequence[Sequence[ItemId]], n_histories: int
) -> list[list[ItemId]]:
    """A list of candidates for each history; histories may share one."""
    own = [one for one in candidates if not isinstance(one, str | int | np.generic)]
    if own and len(own) == len(candidates):
        return [_items(one, number) for number, one in enumerate(own)]
    return [_items(candidates, 0)] * n_histories


def _user(user_id: ItemId | None, result: Result) -> User:
    attention: PooledAttention | FullAttention | None = None
    items = list(result.items)
    if (pooled := result.pooled_attention) is not None:
        attention = PooledAttention(items, pooled[:, 1:], pooled[:, 0])
    if (full := result.full_attention) is not None:
        attention = FullAttention(items, full)
    return User(user_id, len(items), result.truncated, result.unknown, attention)


def _scored_user(user_id: ItemId | None, result: Result) -> ScoredUser:
    items = list(result.items)
    attention = None
    if (weights := result.candidate_attention) is not None:
        attention = CandidateAttention(items, weights)
    scores = np.empty(0, np.float32) if result.scores is None else result.scores
    return ScoredUser(user_id, len(items), result.truncated, result.unknown, scores, attention)
