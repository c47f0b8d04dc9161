"""What a query asks the graphs for, and how their outputs become its results.

Scores come from the graph `score` where the artifact carries it (source-target attention), which
compares every candidate with every click. Otherwise a score is the dot product of the user
embedding and the candidate's item embedding.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from persona.artifact import Artifact
from persona.artifact.catalogue import Catalogue
from persona.artifact.format import Architecture, GraphName
from persona.contract import (
    ITEM_ID,
    AttentionDetail,
    Embeddings,
    Floats,
    InvalidRequest,
    ItemId,
    Results,
    Scores,
    UnknownItems,
)
from persona.engine.clicks import UsedClicks
from persona.engine.limits import Limits, refuse_more
from persona.engine.session import Input, Output

GRAPHS: Mapping[AttentionDetail, GraphName] = {
    "none": "embedding",
    "pooled": "attention",
    "full": "attention_full",
}
# The graph `score` compares every candidate with every click: pieces bound the memory it takes.
CANDIDATES_AT_ONCE = 256


@dataclass(slots=True)
class Work:
    """What a query asks one graph for."""

    graph: GraphName
    inputs: Sequence[Input]
    tokens: Sequence[int]  # of each input: the start token, clicks and candidates
    finish: Callable[[Sequence[Output]], Results]  # outputs, in the order of the inputs


class Answers:
    """Plans the work for what is wanted of histories."""

    def __init__(self, artifact: Artifact, catalogue: Catalogue, limits: Limits) -> None:
        self._name, self._version = artifact.manifest.name, artifact.manifest.version
        self._graphs = artifact.manifest.graphs
        self._architecture = artifact.manifest.architecture
        self._item_embeddings = artifact.item_embeddings()
        self._catalogue = catalogue
        self._limits = limits

    def embeddings(self, histories: Sequence[UsedClicks], want: Embeddings) -> Work:
        """The user embedding of each history, and what it looked at.

        Raises:
            InvalidRequest: the artifact has no such attention, or there are too many weights.
        """
        graph = GRAPHS[want.attention]
        self._require(graph, f"attention '{want.attention}'")
        if graph != "embedding":
            self._refuse_values(_n_weights(graph, histories, self._architecture))
        return _embedding_work(graph, histories, partial(self._embeddings, histories))

    def scores(
        self, histories: Sequence[UsedClicks], want: Scores, unknown_items: UnknownItems
    ) -> Work:
        """The scores of each history's candidates; NaN for unknown ones.

        Raises:
            InvalidRequest: there are too many scores or weights, the artifact has no attention of
                candidates, or a candidate is unknown and `unknown_items` is "error".
        """
        if want.attention:
            self._require("score", "attention of candidates")
        candidates = self._candidates(want.candidates, len(histories), unknown_items)
        if "score" not in self._graphs:
            finish = partial(self._dot_products, histories, candidates)
            return _embedding_work("embedding", histories, finish)
        if want.attention:
            pairs = zip(histories, candidates, strict=True)
            values = sum(len(rows) * history.length for history, rows in pairs)
            self._refuse_values(values * self._architecture.heads)
        inputs = [
            history.with_candidates({ITEM_ID: piece})
            for history, rows in zip(histories, candidates, strict=True)
            for piece in pieces_of(rows)
        ]
        tokens = [1 + one.length + len(one.candidates[ITEM_ID]) for one in inputs]
        finish = partial(self._source_target, histories, candidates, want.attention)
        return Work("score", inputs, tokens, finish)

    def _candidates(
        self,
        candidates: Sequence[Sequence[ItemId]],
        n_histories: int,
        unknown_items: UnknownItems,
    ) -> list["array[int]"]:
        """The rows of each history's candidates; a list that all histories share is read once."""
        if len(candidates) != n_histories:
            raise InvalidRequest(
                f"the request has {len(candidates):,} lists of candidates and "
                f"{n_histories:,} histories",
                "candidates",
            )
        scores = sum(map(len, candidates))
        refuse_more("the response", scores, self._limits.max_scores, "scores", "candidates")
        shared = all(own is candidates[0] for own in candidates)
        found: list[array[int]] = []
        for number, own in enumerate(candidates[:1] if shared else candidates):
            rows = self._catalogue.rows(own)
            if unknown_items == "error" and self._catalogue.n_items in rows:
                at = rows.index(self._catalogue.n_items)
                history = None if shared else number
                place = "candidate" if shared else f"history {number}, candidate"
                message = f"{place} {at}: unknown item {own[at]!r:.60}"
                raise InvalidRequest(message, "candidates", history=history, candidate=at)
            found.append(rows)
        return found * n_histories if shared else found

    def _embeddings(self, histories: Sequence[UsedClicks], outputs: Sequence[Output]) -> Results:
        results = []
        for history, output in zip(histories, outputs, strict=True):
            result = history.result()
            result.embedding = output["user_embedding"]
            used = 1 + history.length
            if "attention_pooled" in output:
                result.pooled_attention = output["attention_pooled"][:, :used]
            elif "attention_full" in output:
                result.full_attention = output["attention_full"][:, :, :used, :used]
            results.append(result)
        return Results(self._name, self._version, results)

    def _dot_products(
        self,
        histories: Sequence[UsedClicks],
        candidates: Sequence["array[int]"],
        outputs: Sequence[Output],
    ) -> Results:
        results = []
        for history, rows, output in zip(histories, candidates, outputs, strict=True):
            index = np.frombuffer(rows, np.int64)
            scores = self._item_embeddings[index] @ output["user_embedding"]  # (N, D) @ (D,)
            scores[index == self._catalogue.n_items] = np.nan
            result = history.result()
            result.scores = scores
            results.append(result)
        return Results(self._name, self._version, results)

    def _source_target(
        self,
        histories: Sequence[UsedClicks],
        candidates: Sequence["array[int]"],
        attention: bool,
        outputs: Sequence[Output],
    ) -> Results:
        rest, results = iter(outputs), []
        for history, rows in zip(histories, candidates, strict=True):
            pieces = [next(rest) for _ in pieces_of(rows)]
            unknown = np.frombuffer(rows, np.int64) == self._catalogue.n_items
            result = history.result()
            result.scores = _joined([piece["scores"] for piece in pieces], (len(rows),))
            result.scores[unknown] = np.nan
            if attention:
                shape = (len(rows), self._architecture.heads, history.length)
                weights = [piece["candidate_attention"][..., : history.length] for piece in pieces]
                result.candidate_attention = _joined(weights, shape)
                result.candidate_attention[unknown] = 0
            results.append(result)
        return Results(self._name, self._version, results)

    def _require(self, graph: GraphName, purpose: str) -> None:
        if graph not in self._graphs:
            message = f"model '{self._name}' carries no graph '{graph}' for {purpose}"
            raise InvalidRequest(message, "attention")

    def _refuse_values(self, values: int) -> None:
        limit = self._limits.max_attention_values
        refuse_more("the attention of the response", values, limit, "values", "attention")


def _embedding_work(
    graph: GraphName,
    histories: Sequence[UsedClicks],
    finish: Callable[[Sequence[Output]], Results],
) -> Work:
    return Work(graph, histories, [1 + history.length for history in histories], finish)


def _n_weights(
    graph: GraphName, histories: Sequence[UsedClicks], architecture: Architecture
) -> int:
    sizes = [1 + history.length for history in histories]
    if graph == "attention":
        return architecture.heads * sum(sizes)
    return architecture.blocks * architecture.heads * sum(size * size for size in sizes)


def pieces_of(rows: "array[int]") -> list["array[int]"]:
    """Candidates that the graph `score` may have at once."""
    starts = range(0, len(rows), CANDIDATES_AT_ONCE)
    return [rows[start : start + CANDIDATES_AT_ONCE] for start in starts]


def _joined(pieces: Sequence[Floats], shape: tuple[int, ...]) -> Floats:
    """Pieces one behind the other. Only the last one may be padded, to other inputs of its run."""
    if not pieces:
        return np.zeros(shape, np.float32)
    return np.concatenate(pieces)[: shape[0]]
