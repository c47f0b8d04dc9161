"""Scores in processes of this machine: one a core, each with an engine of its own."""

import os
import pickle
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from persona.cpus import cpu_limit
from persona.scoring.errors import WorkerEnded
from persona.scoring.parts import Part
from persona.scoring.scorer import ModelFacts, Plan, ScoredPart

PARTS_PER_WORKER = 2  # one is scored while the next one is sent
# Arrow's own allocator keeps 20 MB that it has no more use for, arenas for threads keep others, and
# so does the heap if its threshold grows with what is freed.
SMALL_MEMORY = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**20),
}


class ProcessScorer:
    """Scores with the artifact in a folder, in a process for each core."""

    def __init__(self, artifact: Path | str, *, workers: int | None = None) -> None:
        """Starts nothing before `start`.

        Args:
            artifact: a folder of models, of one model, or of one version.
            workers: processes; None for one a core that this process may use.
        """
        self._artifact = artifact
        self._size = workers or cpu_limit()
        self.at_once = PARTS_PER_WORKER * self._size
        self._threads = ThreadPoolExecutor(self.at_once, "score-part")
        self._workers: list[_Worker] = []
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    def start(self, plan: Plan) -> ModelFacts:
        """As in `Scorer`."""
        self._workers = [_Worker() for _ in range(self._size)]
        for worker in self._workers:
            worker.send((self._artifact, plan))
        facts, *_ = [worker.receive() for worker in self._workers]
        if isinstance(facts, Exception):
            raise facts
        for worker in self._workers * PARTS_PER_WORKER:
            self._free.put(worker)
        found: ModelFacts = facts
        return found

    def submit(self, part: Part) -> "Future[ScoredPart | Exception]":
        """As in `Scorer`; the future may be of a part that was submitted before."""
        return self._threads.submit(self._exchange, part)

    def close(self) -> None:
        """As in `Scorer`."""
        for worker in self._workers:
            worker.end()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def _exchange(self, part: Part) -> ScoredPart | Exception:
        """Sends a part to a worker, and waits for the next one that it has scored."""
        worker = self._free.get()
        try:
            worker.send(part)
            scored: ScoredPart | Exception = worker.receive()
        finally:
            self._free.put(worker)
        return scored


class _Worker:
    """A process of `persona.scoring.worker`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "persona.scoring.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **SMALL_MEMORY, "PYTHONPATH": _path()},
            start_new_session=True,  # Ctrl-C is for this process, which ends its workers
        )
        self._input: Any = self._process.stdin
        self._output: Any = self._process.stdout
        self._sending, self._receiving = threading.Lock(), threading.Lock()

    def send(self, message: Any) -> None:
        """Sends something to the worker; several threads may do so."""
        with self._sending:
            try:
                pickle.dump(message, self._input, pickle.HIGHEST_PROTOCOL)
                self._input.flush()
            except BrokenPipeError:
                raise self._ended() from None

    def receive(self) -> Any:
        """What the worker sends next."""
        with self._receiving:
            try:
                return pickle.load(self._output)  # noqa: S301  # from our own program
            except (EOFError, pickle.UnpicklingError):
                raise self._ended() from None

    def end(self) -> None:
        """Ends the worker at once."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Closes the pipes to a worker that has ended, when no thread uses them any more."""
        for pipe in (self._input, self._output):
            with suppress(BrokenPipeError):
                pipe.close()

    def _ended(self) -> WorkerEnded:
        status = self._process.wait()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        reason = "; is there enough memory?" if status == -9 else ""
        return WorkerEnded(f"worker process {self._process.pid} ended with {how}{reason}")


def _path() -> str:
    """Where a worker finds the modules that this process finds."""
    return os.pathsep.join(filter(None, sys.path))
