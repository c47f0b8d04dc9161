"""One version of a model, verified and warmed up, that answers queries."""

import asyncio
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persona.artifact import ArtifactError, open_artifact
from persona.artifact.catalogue import open_catalogue
from persona.artifact.format import GraphName
from persona.contract import ITEM_ID, Query, Results, Scores
from persona.engine.answers import Answers, Work
from persona.engine.batcher import Batcher, RunStats
from persona.engine.clicks import ClickReader
from persona.engine.limits import Limits
from persona.engine.runs import cut
from persona.engine.session import Input, Output, Session


class Model:
    """An artifact whose checksums and golden pairs hold."""

    def __init__(
        self, folder: Path, limits: Limits, on_run: Callable[[RunStats], None] = lambda _: None
    ) -> None:
        """Verifies the artifact, replays its golden pairs, and runs the largest batches once.

        Raises:
            ArtifactError: the artifact is broken; the message names the file.
        """
        self.artifact = open_artifact(folder)
        self.manifest = self.artifact.manifest
        self._limits, self._on_run = limits, on_run
        catalogue = open_catalogue(self.artifact)
        self._reader = ClickReader(self.artifact, catalogue, limits)
        self._answers = Answers(self.artifact, catalogue, limits)
        self._session = Session(self.artifact)
        self._prove()
        self._warm_up()
        self._batcher: Batcher[Input, Output] = Batcher(
            self._session.prepare,
            max_batch_tokens=limits.max_batch_tokens,
            max_queue_tokens=limits.max_queue_tokens,
            on_run=on_run,
        )

    def submit(self, query: Query, deadline_s: float) -> asyncio.Future[Results]:
        """Answers a query in batches with others; to be called on the event loop.

        The future fails with DeadlineExceeded after `deadline_s` seconds. Cancelling it takes the
        query out of the queue.

        Raises:
            InvalidRequest: a value of the query is wrong; the message says where.
            Overloaded: the queue is full.
        """
        work = self._work(query)
        return self._batcher.submit(
            work.graph, work.inputs, work.tokens, work.finish, deadline_s=deadline_s
        )

    def run(self, query: Query) -> Results:
        """Answers a query in the calling thread; raises as `submit`."""
        work = self._work(query)
        outputs: list[Any] = [None] * len(work.inputs)
        for positions, tokens in cut(work.tokens, self._limits.max_batch_tokens):
            inputs = [work.inputs[position] for position in positions]
            computed = self._session.run(work.graph, inputs)
            padded = len(positions) * max(work.tokens[position] for position in positions)
            self._on_run(RunStats(len(positions), tokens, padded, 0))
            for position, output in zip(positions, computed, strict=True):
                outputs[position] = output
        return work.finish(outputs)

    def _work(self, query: Query) -> Work:
        histories = self._reader.read(query)
        if isinstance(query.want, Scores):
            return self._answers.scores(histories, query.want, query.unknown_items)
        return self._answers.embeddings(histories, query.want)

    def _prove(self) -> None:
        """Replays the golden pairs through every graph that gives embeddings."""
        golden = self.artifact.golden
        clicks: dict[str, list[list[Any]]] = {
            column: [pair.columns.get(column, [0] * len(pair.history)) for pair in golden.pairs]
            for column in self._reader.typecodes
        }
        clicks[ITEM_ID] = [list(pair.history) for pair in golden.pairs]
        numbers = range(len(golden.pairs))
        inputs = [self._reader.newest(clicks, number) for number in numbers]
        expected = np.array([pair.user_embedding for pair in golden.pairs], np.float32)  # (B, D)
        for graph in self.manifest.graphs.keys() - {"score"}:
            outputs = self._run_or_raise(graph, inputs)
            actual = np.stack([output["user_embedding"] for output in outputs])  # (B, D)
            difference = float(np.abs(actual - expected).max())
            if not difference <= golden.tolerance:  # NaN is a difference too
                raise ArtifactError(
                    f"{self.artifact.graph_path(graph)}: differs from the golden embeddings by "
                    f"{difference:g}, tolerance {golden.tolerance:g}"
                )

    def _warm_up(self) -> None:
        """Runs every graph with the largest batches of its shortest and its longest histories."""
        for graph in self.manifest.graphs:
            n_candidates = int(graph == "score")
            for length in (0, 1, self.manifest.architecture.max_length):
                batch = max(1, self._limits.max_batch_tokens // (1 + length + n_candidates))
                columns = {
                    column: array(typecode, [0] * length)
                    for column, typecode in self._reader.typecodes.items()
                }
                one = Input(columns, length, {ITEM_ID: array("q", [0] * n_candidates)})
                self._run_or_raise(graph, [one] * batch)

    def _run_or_raise(self, graph: GraphName, inputs: Sequence[Input]) -> list[Output]:
        try:
            return self._session.run(graph, inputs)
        except Exception as error:  # ONNX Runtime raises subclasses of Exception without a root
            raise ArtifactError(f"{self.artifact.graph_path(graph)}: {error}") from error
