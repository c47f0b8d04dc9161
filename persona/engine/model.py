"""One version of a model, verified and warmed up, that answers queries."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from persona.artifact import open_artifact
from persona.artifact.catalogue import open_catalogue
from persona.artifact.format import Evaluation, GraphName
from persona.coded import CodedHistories
from persona.contract import (
    ITEM_ID,
    DeadlineExceeded,
    Embeddings,
    Floats,
    Query,
    Recommendations,
    Results,
    Scores,
    UnknownItems,
)
from persona.engine.answers import Answers, Work
from persona.engine.batcher import Batcher, RunStats
from persona.engine.clicks import ClickReader
from persona.engine.coded import CodedClicks, CodedReader
from persona.engine.continuing import KEEPING, Continuing, known
from persona.engine.kept import KeptHistories
from persona.engine.limits import Limits
from persona.engine.proof import Proof
from persona.engine.recommending import Recommender
from persona.engine.runs import cut
from persona.engine.session import Input, Output, Session
from persona.engine.steps import Chains, Computation, Step, run

LARGE_HISTORIES = 64  # more are read in turns, between which others are answered
LARGE_CANDIDATES = 4096  # the same
TURN_S = 0.001
CASES_AT_ONCE = 16  # few, as queries of visitors are computed meanwhile
OnRun = Callable[[RunStats], None]
Value = TypeVar("Value")


class Model:
    """An artifact whose checksums and golden pairs hold."""

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        on_run: OnRun = lambda _: None,
        running: "Model | None" = None,
        *,
        attention: bool = True,
    ) -> None:
        """Verifies the artifact, replays its golden pairs, and runs the largest batches once.

        Those have filled the arena that all models of a process share, where a `running` model has
        the same architecture: they take three quarters of the time, and are not run again.

        Raises:
            ArtifactError: the artifact is broken; the message names the file.
        """
        self.artifact = open_artifact(folder, limits.trusted_keys)
        if not attention:
            self.artifact = self.artifact.without("attention", "attention_full")
        self.manifest = self.artifact.manifest
        self._limits, self._on_run = limits, on_run
        self.catalogue = catalogue = open_catalogue(self.artifact)
        self._reader = ClickReader(self.artifact, catalogue, limits)
        architecture = self.manifest.architecture
        window = architecture.max_length, architecture.window_step
        self._coded_reader = CodedReader(catalogue, window, limits)
        self._proof = Proof(self.artifact, self._reader)
        self._answers = Answers(self.artifact, catalogue, limits)
        self._recommender = Recommender(self.artifact, catalogue, self._reader, limits)
        self.kept: KeptHistories | None = None
        continuing: Continuing | None = None
        keeps = limits.kept_megabytes > 0 and self.manifest.graphs.keys() >= set(KEEPING)
        self._session = Session(self.artifact if keeps else self.artifact.without(*KEEPING))
        if keeps:
            self.kept = KeptHistories(
                int(limits.kept_megabytes * 1e6), limits.kept_seconds, limits.kept_clicks
            )
            continuing = Continuing(self._session, self.kept)
            self._proof.replay_continued(self._session)
        self._proof.replay(self._session)
        filled = running is not None and running.manifest.architecture == architecture
        self._proof.warm_up(self._session, limits.max_batch_tokens, filled=filled)
        # Nothing here refers back to the model: a version that nobody uses is freed at once.
        self._batcher: Batcher[Input, Output] = Batcher(
            partial(_prepare, self._session, continuing),
            max_batch_tokens=limits.max_batch_tokens,
            max_queue_tokens=limits.max_queue_tokens,
            on_run=on_run,
        )
        self.backlog = self._batcher.backlog
        self._chains = Chains(partial(_queue, self._batcher), limits.max_queue_tokens)

    def submit(self, query: Query, deadline_s: float) -> asyncio.Future[Results]:
        """Answers a query in batches with others; to be called on the event loop.

        The future fails with DeadlineExceeded after `deadline_s` seconds. Cancelling it takes the
        query out of the queue.

        Raises:
            InvalidRequest: a value of the query is wrong; the message says where.
            Overloaded: the queue is full.
        """
        if isinstance(query.want, Recommendations):
            plan, tokens = self._recommender.plan(query, query.want, self._kept_for(query))
            return self._chains.start(plan, tokens, deadline_s)
        if _is_large(query):
            return asyncio.ensure_future(self._answer_large(query, deadline_s))
        work = self._work(query, self._kept_for(query))
        return self._queue(work, partial(_finish, self._answers, work), deadline_s)

    async def _answer_large(self, query: Query, deadline_s: float) -> Results:
        """As `submit`, but the event loop turns while the query is read, and its results made."""
        ends = perf_counter() + deadline_s
        try:
            histories = await _in_turns(self._reader.steps(query, self._kept_for(query)), ends)
            candidates = await _in_turns(self._answers.candidates(query), ends)
            work = self._answers.plan(query, histories, candidates)
            outputs = await self._queue(work, list, ends - perf_counter())
            return self._answers.together(await _in_turns(work.results(outputs), ends))
        except DeadlineExceeded:
            raise DeadlineExceeded(f"no result within {deadline_s * 1000:,.0f} ms") from None

    def _queue(
        self, work: Work, finish: Callable[[Sequence[Output]], Value], deadline_s: float
    ) -> asyncio.Future[Value]:
        if self.kept is not None and (outputs := known(work.inputs)):
            answered: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
            answered.set_result(finish(outputs))
            return answered
        return self._batcher.submit(
            work.graph, work.inputs, work.tokens, finish, deadline_s=deadline_s
        )

    def probe(self, deadline_s: float) -> asyncio.Future[None]:
        """Asks for a golden history's embedding, in the queue with all queries.

        The future fails with ArtifactError if the answer differs, and as that of `submit`.

        Raises:
            Overloaded: the queue is full.
        """
        one, compare = self._proof.shortest()
        return self._batcher.submit(
            "embedding",
            [one],
            [1 + one.length],
            compare,
            deadline_s=deadline_s,
            counted=False,
        )

    def waiting_s(self) -> float:
        """Seconds since queries wait and nothing is computed."""
        return self._batcher.waiting_s()

    def run(self, query: Query) -> Results:
        """Answers a query in the calling thread; raises as `submit`."""
        return self._answer(query, self._on_run)

    @property
    def embeds_coded(self) -> bool:
        """Whether `embed_coded` can be asked: the model reads nothing but the items of clicks."""
        return self._session.reads_items_alone

    def embed_coded(
        self, histories: CodedHistories, unknown_items: UnknownItems
    ) -> tuple[Floats, CodedClicks]:
        """The user embeddings of histories, (B, D), and which clicks were read.

        Raises:
            InvalidRequest: a limit is passed, or an item is unknown and `unknown_items` is "error".
        """
        clicks = self._coded_reader.read(histories, unknown_items)
        tokens = [1 + length for length in clicks.lengths]
        width = self.manifest.architecture.width
        order, found = list[int](), [np.zeros((0, width), np.float32)]
        for positions, real in cut(tokens, self._limits.max_batch_tokens):
            order += positions
            found.append(self._session.embed(*clicks.padded(positions)))
            padded = len(positions) * tokens[positions[-1]]  # the longest is the last
            self._on_run(RunStats(len(positions), real, padded, 0, 0.0, 0.0, 0.0, "embedding"))
        embeddings = np.empty((len(order), width), np.float32)
        embeddings[order] = np.concatenate(found)
        return embeddings, clicks

    def _answer(self, query: Query, on_run: OnRun) -> Results:
        compute = partial(self._compute, on_run)
        if isinstance(query.want, Recommendations):
            plan, _ = self._recommender.plan(query, query.want)
            return run(plan, compute)
        work = self._work(query)
        return _finish(self._answers, work, compute(Step(work.graph, work.inputs, work.tokens)))

    def _compute(self, on_run: OnRun, step: Step) -> list[Any]:
        outputs: list[Any] = [None] * len(step.inputs)
        for positions, tokens in cut(step.tokens, self._limits.max_batch_tokens):
            inputs = [step.inputs[position] for position in positions]
            computed = _prepare(self._session, None, step.group, inputs)()
            padded = len(positions) * max(step.tokens[position] for position in positions)
            on_run(RunStats(len(positions), tokens, padded, 0, 0.0, 0.0, 0.0, step.group))
            for position, output in zip(positions, computed, strict=True):
                outputs[position] = output
        return outputs

    def quality(self, evaluation: Evaluation) -> float:
        """How well it foresees clicks: the mean reciprocal rank of the candidates clicked, 0 to 1.

        A clicked item that this version does not know counts 0.
        """
        reciprocal_ranks = []
        for start in range(0, len(evaluation.cases), CASES_AT_ONCE):
            cases = evaluation.cases[start : start + CASES_AT_ONCE]
            want = Scores([case.candidates for case in cases])
            query = Query(self._proof.columns(cases), want, now=[case.now for case in cases])
            for result in self._answer(query, _unreported).histories:
                scores = np.asarray(result.scores, np.float32)
                clicked, *others = np.nan_to_num(scores, nan=-np.inf).tolist()
                above = sum(other >= clicked for other in others)
                reciprocal_ranks.append(0.0 if clicked == -np.inf else 1 / (1 + above))
        return float(np.mean(reciprocal_ranks))

    def _kept_for(self, query: Query) -> KeptHistories | None:
        """Where the query's embeddings may come from; attention needs all clicks."""
        want = query.want
        if isinstance(want, Embeddings):
            return self.kept if want.attention == "none" else None
        shows = want.attention if isinstance(want, Scores) else want.reasons
        return None if shows else self.kept

    def _work(self, query: Query, kept: KeptHistories | None = None) -> Work:
        histories = self._reader.read(query, kept)
        return self._answers.plan(query, histories, self._answers.candidates(query))


def _is_large(query: Query) -> bool:
    """Whether reading it would keep others waiting for more than some milliseconds."""
    if len(query.clicks.get(ITEM_ID, ())) > LARGE_HISTORIES:
        return True
    want = query.want
    return isinstance(want, Scores) and sum(map(len, want.candidates)) > LARGE_CANDIDATES


async def _in_turns(values: Iterable[Value], ends: float) -> list[Value]:
    """All of them; the event loop turns after every `TURN_S` in which they are made.

    Raises:
        DeadlineExceeded: `ends`, by `perf_counter`, has passed.
    """
    found, turn_ends = [], perf_counter() + TURN_S
    for value in values:
        found.append(value)
        if perf_counter() >= turn_ends:
            await asyncio.sleep(0)
            if (now := perf_counter()) >= ends:
                raise DeadlineExceeded
            turn_ends = now + TURN_S
    return found


def _finish(answers: Answers, work: Work, outputs: Sequence[Output]) -> Results:
    return answers.together(work.results(outputs))


def _unreported(_stats: RunStats) -> None:
    """Comparing versions is no run of a query, and happens on another thread."""


def _queue(
    batcher: Batcher[Input, Output], step: Step, deadline_s: float, admitted: bool
) -> asyncio.Future[Any]:
    return batcher.submit(
        step.group, step.inputs, step.tokens, list, deadline_s=deadline_s, admitted=admitted
    )


def _prepare(
    session: Session,
    continuing: Continuing | None,
    group: GraphName | Computation,
    inputs: list[Any],
) -> Callable[[], Sequence[Any]]:
    """What computes the inputs of one run."""
    if continuing is not None and group == "embedding":
        return continuing.prepare(inputs)
    if isinstance(group, str):
        return session.prepare(group, inputs)
    return partial(group.compute, inputs)
