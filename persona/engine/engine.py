"""The models of a folder, in this process: for notebooks, batch jobs, and the service."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from persona.artifact import find_artifacts
from persona.coded import CodedHistories
from persona.contract import (
    ITEM_ID,
    AttentionDetail,
    Embeddings,
    Floats,
    ItemId,
    Overloaded,
    Query,
    Recommendations,
    Result,
    Results,
    Scores,
    UnknownItems,
)
from persona.engine.arguments import lists, plain, query_of
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
    Reasons,
    Recommended,
    RecommendedUser,
    Scored,
    ScoredUser,
    Similar,
    SimilarItem,
    User,
)

OnRun = Callable[[str, str, RunStats], None]


class Engine:
    """Answers queries about click histories from trained artifacts.

        engine = Engine.open("artifacts/news")
        engine.encode([["frontpage", "news"]], attention="pooled").embeddings  # (1, D) float32

    All but `submit` compute in the calling thread and may be called from several.
    `submit` computes on the running event loop, in batches with other queries.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry  # a new one may take its place between two queries

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        on_run: OnRun = lambda _model, _version, _stats: None,
        attention: bool = True,
    ) -> Self:
        """Verifies and opens the newest version of each model in a folder.

        Args:
            folder: of artifacts (`<name>/<version>/`), of one model, or of one version.
            limits: of each query, and of what may wait.
            on_run: called after each run with the model's name and version, and what the run took.
            attention: False leaves out what shows attention, and its memory.

        Raises:
            ArtifactError: there is no artifact, or one is broken; the message names the file.
        """
        found = find_artifacts(Path(folder))
        names = [(path.parent.name, path.name) for path in found]
        models = [
            Model(path, limits, partial(on_run, *name), attention=attention)
            for path, name in zip(found, names, strict=True)
        ]
        return cls(Registry(models))

    def submit(self, query: Query, deadline_s: float) -> asyncio.Future[Results]:
        """Answers a query in batches with others; to be called on the event loop.

        The future fails with DeadlineExceeded after `deadline_s` seconds. Cancelling it takes the
        query out of the queue.

        Raises:
            ModelNotFound: no such model or version.
            NotReady: no version of the model could be loaded.
            InvalidRequest: a value of the query is wrong; the message says where.
            Overloaded: the queue is full.
        """
        found = self.registry.find(query.model, query.version, query.routing_key)
        return found.submit(query, deadline_s)

    def refuse_late(self, deadline_s: float, tokens: int = 0) -> None:
        """Refuses a query that nobody has read yet, of about so many tokens.

        Raises:
            Overloaded: the deadline would pass in the queue of every model.
        """
        if not (models := self.registry.models):
            return
        for model in models[:-1]:
            with suppress(Overloaded):
                model.backlog.refuse_late(deadline_s, tokens)
                return
        models[-1].backlog.refuse_late(deadline_s, tokens)

    def run(self, query: Query) -> Results:
        """Answers a query in the calling thread; raises as `submit`."""
        return self.registry.find(query.model, query.version, query.routing_key).run(query)

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
                mapping `{"id": ..., "items": [...]}` whose id comes back with the result. For a
                model that reads time it is a mapping with `times`, in seconds, and `now`, the time
                of asking, where that is known.
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
        found = self.registry.find(model, version)
        if isinstance(histories, CodedHistories) and attention == "none" and found.embeds_coded:
            return _encode_coded(found, histories, unknown_items)
        want = Embeddings(attention)
        ids, query = query_of(histories, want, model, version, unknown_items)
        results = found.run(query)
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
        want = Scores(lists(candidates, len(histories)), attention)
        ids, query = query_of(histories, want, model, version, unknown_items)
        results = self.run(query)
        users = [_scored_user(*pair) for pair in zip(ids, results.histories, strict=True)]
        return Scored(results.model, results.version, users)

    def recommend(
        self,
        histories: Iterable[History],
        k: int = 10,
        *,
        exclude_seen: bool = False,
        allowed: Iterable[ItemId] | None = None,
        denied: Iterable[ItemId] = (),
        with_reasons: bool = False,
        exact: bool = False,
        model: str | None = None,
        version: str | None = None,
        unknown_items: UnknownItems = "token",
    ) -> Recommended:
        """The `k` best items for each history, as `Client.recommend` returns them.

        Args:
            histories: as for `encode`.
            k: how many; fewer come back where the catalogue or the filters leave fewer.
            exclude_seen: leave out the items of the history.
            allowed: recommend only these. Unknown ones are ignored, here and in `denied`.
            denied: never recommend these.
            with_reasons: ask how much each click speaks for each recommended item.
            exact: search the whole table even where the artifact has an index.
            model: as for `encode`, like the others.
            version: of the model.
            unknown_items: `error` also refuses unknown items in `allowed` and `denied`.
        """
        want = Recommendations(
            k,
            exclude_seen=exclude_seen,
            allowed=None if allowed is None else plain(allowed, "allowed"),
            denied=plain(denied, "denied"),
            reasons=with_reasons,
            exact=exact,
        )
        ids, query = query_of(histories, want, model, version, unknown_items)
        results = self.run(query)
        users = [_recommended_user(*pair) for pair in zip(ids, results.histories, strict=True)]
        return Recommended(results.model, results.version, users, results.recall)

    def similar(
        self,
        items: Iterable[ItemId],
        k: int = 10,
        *,
        allowed: Iterable[ItemId] | None = None,
        denied: Iterable[ItemId] = (),
        model: str | None = None,
        version: str | None = None,
    ) -> Similar:
        """The `k` items that are most like each item, by the cosine of their embeddings.

        The item itself is not among them. An unknown item has none. All else is as for `recommend`.
        """
        wanted = plain(items, "items")
        want = Recommendations(
            k,
            wanted,
            allowed=None if allowed is None else plain(allowed, "allowed"),
            denied=plain(denied, "denied"),
        )
        results = self.run(Query({ITEM_ID: []}, want, model, version))
        found = [
            SimilarItem(item, list(result.recommended), _scores(result), list(result.cold))
            for item, result in zip(wanted, results.histories, strict=True)
        ]
        return Similar(results.model, results.version, found)


def _encode_coded(model: Model, histories: CodedHistories, unknown_items: UnknownItems) -> Encoded:
    embeddings, clicks = model.embed_coded(histories, unknown_items)
    counts = zip(clicks.lengths, clicks.truncated, clicks.unknown, strict=True)
    users = [User(None, *of_one) for of_one in counts]
    return Encoded(model.manifest.name, model.manifest.version, embeddings, users)


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
    counts = (len(items), result.truncated, result.unknown)
    return ScoredUser(user_id, *counts, _scores(result), attention)


def _recommended_user(user_id: ItemId | None, result: Result) -> RecommendedUser:
    reasons = None
    if result.reasons is not None:
        reasons = Reasons(list(result.items), result.reasons, result.base_scores)
    counts = (len(result.items), result.truncated, result.unknown)
    found = list(result.recommended)
    return RecommendedUser(user_id, *counts, found, _scores(result), reasons, list(result.cold))


def _scores(result: Result) -> Floats:
    return np.empty(0, np.float32) if result.scores is None else result.scores
