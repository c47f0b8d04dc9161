"""The life of a worker: starting, ready, then draining; or broken, with a reason."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from persona.collector import collect_seldom
from persona.contract import NotReady, Results
from persona.engine import Engine
from persona.engine.model import Model
from persona.engine.session import flush_subnormals
from persona.engine.timeouts import Timeouts
from service.board import Report, Seat, State
from service.logs import frames
from service.metrics import READY, RESTARTS, Tally
from service.settings import Settings
from service.traffic import Traffic
from service.versions.watching import Watcher

RETRY_S = 1.0
LAST_ANSWERS_S = 0.2
SMALL_BYTES = 2048  # smaller bodies take little time to parse
YOUNG_OBJECTS = 20_000  # objects before the garbage collector runs; Python's default is 700

logger = logging.getLogger(__name__)


class Service:
    """The engine of one worker, and its state."""

    def __init__(self, settings: Settings, seat: Seat = Seat()) -> None:  # noqa: B008  # frozen
        self.settings = settings
        self.seat = seat
        self.tally = Tally(self._models)
        self.traffic = Traffic(self.tally)
        self.timeouts = Timeouts()
        self.versions = Watcher(settings, self.tally.add_run)
        self._state: State = "starting"
        self._reason = "loading the artifacts"
        self._since = time.time()
        self._doubted = False
        self._bytes = self._tokens = 0.0  # of recent bodies, except small ones
        self.changed = asyncio.Event()  # its state in the last report
        self._loaded = asyncio.Event()  # or broken

    async def run(self) -> None:
        """Loads the artifacts, then follows changes until it is cancelled."""
        await self.load()
        while True:
            try:
                await self.versions.watch(self._changed)
            except Exception as error:  # noqa: BLE001  # the served versions stay, and the next check may succeed
                logger.critical("looking at the artifacts failed\n%s", frames(error))
                await asyncio.sleep(RETRY_S)

    async def load(self) -> None:
        """Opens every artifact in a thread, so that the event loop keeps running."""
        try:
            await self.versions.follow()
        except Exception as error:  # noqa: BLE001  # the process stays up to report the problem
            self._turn("broken", f"loading the artifacts failed: {type(error).__name__}")
            logger.critical("loading the artifacts failed\n%s", frames(error))
        else:
            self._changed()
        finally:
            self._loaded.set()

    def _changed(self) -> None:
        """Updates the state after a change of the served versions.

        The worker is ready only with the default model, which most requests use. A service that
        starts without it must not replace one that has it. The other models still answer.
        """
        collect_seldom(YOUNG_OBJECTS)
        engine, state = self.versions.rollout.engine, self.versions.rollout.state
        names = [model.manifest.name for model in engine.registry.models] if engine else []
        if self._state == "draining":
            return
        if state.default in names:
            if self._state != "ready":
                logger.info("ready: %s", ", ".join(names))
            self._turn("ready", "")
        else:
            reason = "; ".join(state.problems.values()) or f"no model '{state.default}'"
            self._turn("broken", reason)
            logger.critical("not ready: %s", reason)

    def _models(self) -> list[Model]:
        engine = self.versions.rollout.engine
        return engine.registry.loaded if engine else []

    @property
    def is_loading(self) -> bool:
        """Whether the artifacts are being opened."""
        return not self._loaded.is_set()

    async def loaded(self, seconds: float | None = None) -> None:
        """Waits until loading has ended, but at most this long; by default a request's deadline.

        Workers share a port: once one of them is ready, requests reach the others too.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds or self.settings.deadline_ms / 1000):
                await self._loaded.wait()

    async def settled(self) -> None:
        """Waits until loading has ended, without a limit."""
        await self._loaded.wait()

    @property
    def is_ready(self) -> bool:
        """Whether new work should be sent here."""
        return self._state == "ready"

    @property
    def is_draining(self) -> bool:
        """Whether connections should end with their next answer."""
        return self._state == "draining"

    def drain(self) -> None:
        """Starts draining: `/health/ready` is 503, but requests are still answered."""
        self._turn("draining", "shutting down")

    def doubt(self, state: State, reason: str) -> None:
        """Marks a ready worker as broken or stalled until `trust`."""
        if self._state == "ready" or (self._doubted and self._state != "draining"):
            if not self._doubted:
                logger.error("%s: %s", state, reason)
            self._doubted = True
            self._turn(state, reason)

    def trust(self) -> None:
        """Marks the worker as ready again."""
        if self._doubted and self._state != "draining":
            self._turn("ready", "")
            logger.info("ready again")
        self._doubted = False

    def report(self) -> Report:
        """This worker's report."""
        engine = self.versions.rollout.engine
        models = [] if engine is None else engine.registry.loaded
        return Report(
            worker=self.seat.number,
            process_id=os.getpid(),
            state=self._state,
            reason=self._reason,
            since=self._since,
            beat=time.monotonic(),
            takes_requests=self._state != "starting" or not self.seat.holds_back,
            models=[f"{model.manifest.name}/{model.manifest.version}" for model in models],
        )

    def _turn(self, state: State, reason: str) -> None:
        if state != self._state:
            self._since = time.time()
            self.changed.set()
        self._state, self._reason = state, reason
        READY.set(state == "ready")

    def engine(self) -> Engine:
        """The engine.

        Raises:
            NotReady: the artifacts are not loaded.
        """
        engine = self.versions.rollout.engine
        if engine is None:
            raise NotReady(f"{self._state}: {self._reason}")
        return engine

    def note_size(self, body_bytes: int, results: Results) -> None:
        """Learns how many tokens a body has per byte, from bodies that are not small."""
        if body_bytes > SMALL_BYTES:
            tokens = sum([1 + len(history.items) for history in results.histories])
            self._bytes = 0.9 * self._bytes + body_bytes
            self._tokens = 0.9 * self._tokens + tokens

    def refuse_late(self, deadline_s: float, body_bytes: int) -> None:
        """Refuses a late request before its body is parsed, because parsing takes long too.

        Raises:
            Overloaded: the deadline would pass in the queue, for any model.
        """
        if (engine := self.versions.rollout.engine) is not None:
            few = body_bytes <= SMALL_BYTES or not self._bytes
            tokens = 0 if few else int(body_bytes * self._tokens / self._bytes)
            engine.refuse_late(deadline_s, tokens)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Drains the service on SIGTERM, before the server closes its sockets.

        Enter it in the computing thread, before anything is loaded.
        """
        flush_subnormals()
        if self.seat.restarts is not None:
            RESTARTS.labels(self.seat.restarts).inc()
        try:
            with _delayed_exit(self.drain, self.settings.drain_seconds):
                yield
        finally:
            self.drain()
            self.versions.close()
            self.tally.flush()


@contextmanager
def _delayed_exit(drain: Callable[[], None], seconds: float) -> Iterator[None]:
    """On SIGTERM, calls `drain` at once and the server's own handler `seconds` later.

    At least `LAST_ANSWERS_S` later: until then, answers tell clients to reconnect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread; an embedding program must drain by itself
        return
    loop = asyncio.get_running_loop()
    server_handler = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: FrameType | None) -> None:
        if callable(server_handler):
            server_handler(number, frame)

    def begin(number: int, frame: FrameType | None) -> None:
        drain()
        loop.call_later(max(seconds, LAST_ANSWERS_S), end, number, frame)

    def on_signal(number: int, frame: FrameType | None) -> None:
        # Not here, because this thread may hold a lock of the metrics when the signal comes.
        loop.call_soon_threadsafe(begin, number, frame)

    signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, server_handler)
