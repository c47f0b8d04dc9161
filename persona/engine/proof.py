"""Replays an artifact's golden pairs before a model answers, and while it does."""

import math
import sys
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from persona.artifact import Artifact, ArtifactError
from persona.artifact.format import EvaluationCase, GoldenPair, GraphName
from persona.contract import ITEM_ID, Floats, Query
from persona.engine.clicks import ClickReader, UsedClicks
from persona.engine.continuing import KEEPING, Continuing
from persona.engine.kept import KeptHistories
from persona.engine.session import Input, Output, Session


class Proof:
    """The golden pairs of an artifact, as its model reads them.

    Methods that run a graph raise ArtifactError if it fails, or differs from the golden embeddings.
    """

    def __init__(self, artifact: Artifact, reader: ClickReader) -> None:
        self._artifact, self._reader = artifact, reader
        self._inputs: list[UsedClicks] = []

    def replay(self, session: Session) -> None:
        """Replays the golden pairs through every graph that gives embeddings."""
        golden = self._artifact.golden
        query = Query(self.columns(golden.pairs), now=[pair.now for pair in golden.pairs])
        self._inputs = self._reader.used(query, range(len(golden.pairs)))
        expected = np.array([pair.user_embedding for pair in golden.pairs], np.float32)  # (B, D)
        for graph in self._artifact.manifest.graphs.keys() - {"score", *KEEPING}:
            outputs = _run_or_raise(session, graph, self._inputs)
            actual = np.stack([output["user_embedding"] for output in outputs])  # (B, D)
            self._compare(graph, actual, expected)

    def replay_continued(self, session: Session) -> None:
        """Replays the golden pairs without their newest clicks, and then with them."""
        pairs = self._artifact.golden.pairs
        kept = KeptHistories(sys.maxsize, math.inf)
        continuing = Continuing(session, kept)
        histories = [[pair.history[:-1] for pair in pairs], [pair.history for pair in pairs]]
        _, outputs = (
            continuing.prepare(self._reader.used(Query({ITEM_ID: part}), range(len(part)), kept))()
            for part in histories
        )
        actual = np.stack([output["user_embedding"] for output in outputs])  # (B, D)
        expected = np.array([pair.user_embedding for pair in pairs], np.float32)
        self._compare("embedding_next", actual, expected)

    def _compare(self, graph: GraphName, actual: Floats, expected: Floats) -> None:
        difference = float(np.abs(actual - expected).max())
        tolerance = self._artifact.golden.tolerance
        if not difference <= tolerance:  # NaN is a difference too
            raise ArtifactError(
                f"{self._artifact.graph_path(graph)}: differs from the golden embeddings by "
                f"{difference:g}, tolerance {tolerance:g}"
            )

    def columns(self, cases: Sequence[GoldenPair | EvaluationCase]) -> dict[str, list[list[Any]]]:
        """The clicks of an artifact's own cases, column by column."""
        clicks: dict[str, list[list[Any]]] = {
            column: [
                case.columns.get(
                    column,
                    [None if column in self._artifact.manifest.columns else 0] * len(case.history),
                )
                for case in cases
            ]
            for column in self._reader.typecodes
        }
        clicks[ITEM_ID] = [list(case.history) for case in cases]
        return clicks

    def shortest(self) -> tuple[Input, Callable[[Sequence[Output]], None]]:
        """The shortest golden history, and what compares its outputs with the golden embedding."""
        number = min(range(len(self._inputs)), key=lambda n: self._inputs[n].length)
        return self._inputs[number], partial(self._compare_one, number)

    def _compare_one(self, number: int, outputs: Sequence[Output]) -> None:
        expected = np.array(self._artifact.golden.pairs[number].user_embedding, np.float32)
        self._compare("embedding", outputs[0]["user_embedding"], expected)

    def warm_up(self, session: Session, max_batch_tokens: int, *, filled: bool) -> None:
        """Runs every graph with the largest batches of its shortest and its longest histories.

        `filled`: another model has done so; one history is enough.
        """
        for graph in self._artifact.manifest.graphs.keys() - set(KEEPING):
            n_candidates = int(graph == "score")
            for length in (
                (1,) if filled else (0, 1, self._artifact.manifest.architecture.max_length)
            ):
                most = max_batch_tokens // (1 + length + n_candidates)
                batch = 1 if filled else max(1, most)
                columns = {
                    column: array(typecode, [0] * length)
                    for column, typecode in self._reader.typecodes.items()
                }
                candidates = {ITEM_ID: array("q", [0] * n_candidates)}
                one = Input(columns, length, candidates=candidates)
                _run_or_raise(session, graph, [one] * batch)


def _run_or_raise(session: Session, graph: GraphName, inputs: Sequence[Input]) -> list[Output]:
    try:
        return session.run(graph, inputs)
    except Exception as error:  # ONNX Runtime raises subclasses of Exception without a root
        raise ArtifactError(f"{session.artifact.graph_path(graph)}: {error}") from error
