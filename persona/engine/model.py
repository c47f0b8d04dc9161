"""One version of a model, verified and warmed up, that answers queries."""

import asyncio
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from persona.artifact import ArtifactError, open_artifact
from persona.artifact.catalogue import open_catalogue
from persona.artifact.format import GraphName
from persona.contract import ITEM_ID, DeadlineExceeded, Floats, Query, Results, Scores
from persona.engine.answers import Answers, Work
from persona.engine.batcher import Batcher, RunStats
from persona.engine.clicks import ClickReader, UsedClicks
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
        self._limits = limits
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
        return self._queue(self._work(query, self._reader.read(query)), deadline_s)

    async def submit_large(self, query: Query, deadline_s: float) -> asyncio.Future[Results]:
        """As `submit`, but the event loop turns while the query is read.

        Raises:
            DeadlineExceeded: the deadline passed meanwhile.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + deadline_s
        histories: list[UsedClicks] = []
        for step in self._reader.steps(query):
            histories += step
            await asyncio.sleep(0)
            if loop.time() >= ends:
                raise DeadlineExceeded(f"no result within {deadline_s * 1000:,.0f} ms")
        return self._queue(self._work(query, histories), ends - loop.time())

    def _queue(self, work: Work, deadline_s: float) -> asyncio.Future[Results]:
        return self._batcher.submit(
            work.graph, work.inputs, work.tokens, work.finish, deadline_s=deadline_s
        )

    def probe(self, deadline_s: float) -> asyncio.Future[None]:
        """Asks for a golden history's embedding, in the queue with all queries.

        The future fails with ArtifactError if the answer differs, and as that of `submit`.

        Raises:
            Overloaded: the queue is full.
        """
        number = min(range(len(self._golden_inputs)), key=lambda n: self._golden_inputs[n].length)
        one = self._golden_inputs[number]
        return self._batcher.submit(
            "embedding",
            [one],
            [1 + one.length],
            partial(self._compare_probe, number),
            deadline_s=deadline_s,
            counted=False,
        )

    def refuse_late(self, deadline_s: float) -> None:
        """Refuses a query that nobody has read yet.

        Raises:
            Overloaded: the deadline would pass in the queue.
        """
        self._batcher.refuse_late(deadline_s)

    def waiting_s(self) -> float:
        """Seconds since queries wait and nothing is computed."""
        return self._batcher.waiting_s()

    def _compare_probe(self, number: int, outputs: Sequence[Output]) -> None:
        golden = self.artifact.golden
        self._compare(
            "embedding",
            outputs[0]["user_embedding"],
            np.array(golden.pairs[number].user_embedding, np.float32),
        )

    def run(self, query: Query) -> Results:
        """Answers a query in the calling thread; raises as `submit`."""
        work = self._work(query, self._reader.read(query))
        outputs: list[Any] = [None] * len(work.inputs)
        for positions, _ in cut(work.tokens, self._limits.max_batch_tokens):
            inputs = [work.inputs[position] for position in positions]
            computed = self._session.run(work.graph, inputs)
            for position, output in zip(positions, computed, strict=True):
                outputs[position] = output
        return work.finish(outputs)

    def _work(self, query: Query, histories: Sequence[UsedClicks]) -> Work:
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
        self._golden_inputs = [self._reader.newest(clicks, number) for number in numbers]
        expected = np.array([pair.user_embedding for pair in golden.pairs], np.float32)  # (B, D)
        for graph in self.manifest.graphs.keys() - {"score"}:
            outputs = self._run_or_raise(graph, self._golden_inputs)
            actual = np.stack([output["user_embedding"] for output in outputs])  # (B, D)
            self._compare(graph, actual, expected)

    def _compare(self, graph: GraphName, actual: Floats, expected: Floats) -> None:
        difference = float(np.abs(actual - expected).max())
        tolerance = self.artifact.golden.tolerance
        if not difference <= tolerance:  # NaN is a difference too
            raise ArtifactError(
                f"{self.artifact.graph_path(graph)}: differs from the golden embeddings by "
                f"{difference:g}, tolerance {tolerance:g}"
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
