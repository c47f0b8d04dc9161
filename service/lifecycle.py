"""The life of a worker: starting, ready, then draining; or broken, and able to say why."""

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Literal

from persona.contract import NotReady
from persona.engine import Engine
from persona.engine.session import flush_subnormals
from persona.engine.timeouts import Timeouts
from service.logs import frames
from service.metrics import READY, Tally, forget_worker
from service.settings import Settings
from service.traffic import Traffic
from service.versions.watching import Watcher

RETRY_S = 1.0
YOUNG_OBJECTS = 20_000  # that may come before the garbage collector looks; Python's default is 700

logger = logging.getLogger(__name__)


class Service:
    """The engine of one worker, and whether it is fit to answer."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tally = Tally()
        self.traffic = Traffic(self.tally)
        self.timeouts = Timeouts()
        self.versions = Watcher(settings, self.tally.add_run)
        self._state: Literal["starting", "ready", "broken", "draining"] = "starting"
        self._reason = "loading the artifacts"
        self._loaded = asyncio.Event()  # or broken

    async def run(self) -> None:
        """Loads what there is, and then follows what changes, until it is cancelled."""
        await self.load()
        while True:
            try:
                await self.versions.watch(self._changed)
            except Exception as error:  # noqa: BLE001  # what is served stays, and the next look may do
                logger.critical("looking at the artifacts failed\n%s", frames(error))
                await asyncio.sleep(RETRY_S)

    async def load(self) -> None:
        """Opens every artifact in a thread, so that the worker stays live."""
        try:
            await self.versions.follow()
        except Exception as error:  # noqa: BLE001  # the process stays up to say what is wrong
            self._turn("broken", f"loading the artifacts failed: {type(error).__name__}")
            logger.critical("loading the artifacts failed\n%s", frames(error))
        else:
            self._changed()
        finally:
            self._loaded.set()

    def _changed(self) -> None:
        """Takes notice of what is served by now.

        Ready needs the default model, which most requests ask for: a service that starts without
        it must not take the place of one that has it. The other models answer all the same.
        """
        _spare_the_garbage_collector()
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

    @property
    def is_loading(self) -> bool:
        """Whether the artifacts are being opened."""
        return not self._loaded.is_set()

    async def loaded(self) -> None:
        """Waits until loading has ended, at most as long as a request may take.

        Workers share a port: once one of them is ready, requests reach those that are not.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.deadline_ms / 1000):
                await self._loaded.wait()

    def drain(self) -> None:
        """From now on `/health/ready` is 503, while requests are still answered."""
        self._turn("draining", "shutting down")

    def _turn(self, state: Literal["ready", "broken", "draining"], reason: str) -> None:
        self._state, self._reason = state, reason
        READY.set(state == "ready")

    def require_ready(self) -> None:
        """Checks that new work should be sent here.

        Raises:
            NotReady: not yet, no more, or never; the message says why.
        """
        if self._state != "ready":
            raise NotReady(f"{self._state}: {self._reason}")

    def engine(self) -> Engine:
        """What answers queries.

        Raises:
            NotReady: the artifacts are not loaded.
        """
        engine = self.versions.rollout.engine
        if engine is None:
            raise NotReady(f"{self._state}: {self._reason}")
        return engine

    @contextmanager
    def running(self) -> Iterator[None]:
        """Drains when the process is asked to end, before the server closes its sockets.

        To be entered by the thread that computes, before anything is loaded.
        """
        flush_subnormals()
        try:
            with _delayed_exit(self.drain, self.settings.drain_seconds):
                yield
        finally:
            self.drain()
            self.versions.close()
            self.tally.flush()
            forget_worker()


def _spare_the_garbage_collector() -> None:
    """Hides what was loaded from the garbage collector, and lets it look at requests less often.

    Their lists of ids have no cycles, and each look visits every id.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


@contextmanager
def _delayed_exit(drain: Callable[[], None], seconds: float) -> Iterator[None]:
    """On SIGTERM calls `drain` at once and the server's own handler `seconds` later."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread: an embedding program drains by itself
        return
    loop = asyncio.get_running_loop()
    server_handler = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: FrameType | None) -> None:
        if callable(server_handler):
            server_handler(number, frame)

    def on_signal(number: int, frame: FrameType | None) -> None:
        drain()
        loop.call_soon_threadsafe(loop.call_later, seconds, end, number, frame)

    signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, server_handler)
