"""What a query asks the graphs for, and how their outputs become its results.

Scores come from the graph `score` where the artifact carries it (source-target attention), which
compares every candidate with every click. Otherwise a score is the dot product of the user
embedding and the candidate's item embedding.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

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
    Query,
    Result,
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
ROWS_AT_ONCE = 2048  # of candidates that are looked up: .5 ms


@dataclass(slots=True)
class Work:
    """What a query asks one graph for."""

    graph: GraphName
    inputs: Sequence[Input]
    tokens: Sequence[int]  # of each input: the start token, clicks and candidates
    results: Callable[[Sequence[Output]], Iterator[Result]]  # one a history, of all outputs


class Answers:
    """Plans the work for what is wanted of histories."""

    def __init__(self, artifact: Artifact, catalogue: Catalogue, limits: Limits) -> None:
        self._name, self._version = artifact.manifest.name, artifact.manifest.version
        self._graphs = artifact.manifest.graphs
        self._architecture = artifact.manifest.architecture
        self._item_embeddings = artifact.item_embeddings()
        self._catalogue = catalogue
        self._limits = limits

    def plan(
        self, query: Query, histories: Sequence[UsedClicks], candidates: Iterable["array[int]"]
    ) -> Work:
        """The work for a query, of which the clicks and the candidates' rows are read.

        Raises:
            InvalidRequest: as `embeddings` and `scores`.
        """
        if isinstance(query.want, Scores):
            rows = self._split(query.want.candidates, candidates, query.unknown_items)
            return self.scores(histories, query.want, rows)
        assert isinstance(query.want, Embeddings)  # noqa: S101  # nothing else has work of this kind
        return self.embeddings(histories, query.want)

    def together(self, results: Iterable[Result]) -> Results:
        """The answer to a query."""
        return Results(self._name, self._version, list(results))

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
        self, histories: Sequence[UsedClicks], want: Scores, candidates: Sequence["array[int]"]
    ) -> Work:
        """The scores of each history's candidates; NaN for unknown ones.

        Raises:
            InvalidRequest: there are too many weights, or the artifact has no attention of
                candidates.
        """
        if want.attention:
            self._require("score", "attention of candidates")
        if "score" not in self._graphs:
            results = partial(self._dot_products, histories, candidates)
            return _embedding_work("embedding", histories, results)
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
        results = partial(self._source_target, histories, candidates, want.attention)
        return Work("score", inputs, tokens, results)

    def candidates(self, query: Query) -> Iterator["array[int]"]:
        """The rows of a query's candidates in pieces, those of all histories in a row.

        A list that all histories share is read once.

        Raises:
            InvalidRequest: there are too many, or not as many lists as histories.
        """
        if not isinstance(query.want, Scores):
            return
        lists, n_histories = query.want.candidates, len(query.clicks[ITEM_ID])
        if len(lists) != n_histories:
            raise InvalidRequest(
                f"the request has {len(lists):,} lists of candidates and {n_histories:,} histories",
                "candidates",
            )
        scores = sum(map(len, lists))
        refuse_more("the response", scores, self._limits.max_scores, "scores", "candidates")
        wanted = list(chain.from_iterable(lists[:1] if _is_shared(lists) else lists))
        for start in range(0, len(wanted), ROWS_AT_ONCE):
            yield self._catalogue.rows(wanted[start : start + ROWS_AT_ONCE])

    def _split(
        self,
        lists: Sequence[Sequence[ItemId]],
        pieces: Iterable["array[int]"],
        unknown_items: UnknownItems,
    ) -> list["array[int]"]:
        """The rows of each history's candidates.

        Raises:
            InvalidRequest: a candidate is unknown and `unknown_items` is "error".
        """
        rows = array("q")
        for piece in pieces:
            rows.extend(piece)
        shared, unknown = _is_shared(lists), self._catalogue.n_items
        found: list[array[int]] = []
        start = 0
        for number, own in enumerate(lists[:1] if shared else lists):
            found.append(rows[start : start + len(own)])
            start += len(own)
            if unknown_items == "error" and unknown in found[-1]:
                at = found[-1].index(unknown)
                history = None if shared else number
                place = "candidate" if shared else f"history {number}, candidate"
                message = f"{place} {at}: unknown item {own[at]!r:.60}"
                raise InvalidRequest(message, "candidates", history=history, candidate=at)
        return found * len(lists) if shared else found

    def _embeddings(
        self, histories: Sequence[UsedClicks], outputs: Sequence[Output]
    ) -> Iterator[Result]:
        for history, output in zip(histories, outputs, strict=True):
            result = history.result()
            result.embedding = output["user_embedding"]
            used = 1 + history.length
            if "attention_pooled" in output:
                result.pooled_attention = output["attention_pooled"][:, :used]
            elif "attention_full" in output:
                result.full_attention = output["attention_full"][:, :, :used, :used]
            yield result

    def _dot_products(
        self,
        histories: Sequence[UsedClicks],
        candidates: Sequence["array[int]"],
        outputs: Sequence[Output],
    ) -> Iterator[Result]:
        for history, rows, output in zip(histories, candidates, outputs, strict=True):
            index = np.frombuffer(rows, np.int64)
            scores = self._item_embeddings[index] @ output["user_embedding"]  # (N, D) @ (D,)
            scores[index == self._catalogue.n_items] = np.nan
            result = history.result()
            result.scores = scores
            yield result

    def _source_target(
        self,
        histories: Sequence[UsedClicks],
        candidates: Sequence["array[int]"],
        attention: bool,
        outputs: Sequence[Output],
    ) -> Iterator[Result]:
        rest = iter(outputs)
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
            yield result

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
    results: Callable[[Sequence[Output]], Iterator[Result]],
) -> Work:
    return Work(graph, histories, [history.tokens for history in histories], results)


def _is_shared(lists: Sequence[Sequence[ItemId]]) -> bool:
    return all(one is lists[0] for one in lists)


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
