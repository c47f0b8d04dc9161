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

from service.artifact import find_artifacts
from service.errors import ArtifactError, ModelNotFound, NotReady
from service.logs import frames
from service.metrics import READY, Tally, forget_worker
from service.models import Model, load
from service.settings import Settings
from service.subnormals import flushed_subnormals

YOUNG_OBJECTS = 20_000  # that the garbage collector lets come before it looks; Python says 700

logger = logging.getLogger(__name__)


class Service:
    """The models of one worker, and whether it is fit to answer for them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tally = Tally()
        self._models: dict[str, Model] = {}
        self._state: Literal["starting", "ready", "broken", "draining"] = "starting"
        self._reason = "loading the artifacts"
        self._loaded = asyncio.Event()  # or broken

    async def load(self) -> None:
        """Opens, proves and warms up every artifact in a thread, so that the worker stays live."""
        try:
            models = await asyncio.to_thread(self._load_all)
        except ArtifactError as error:
            self._turn("broken", error.message)
            logger.critical("not ready: %s", error.message)
        except Exception as error:  # noqa: BLE001  # the process stays up to say what is wrong
            self._turn("broken", f"loading the artifacts failed: {type(error).__name__}")
            logger.critical("loading the artifacts failed\n%s", frames(error))
        else:
            self._models = {model.artifact.manifest.name: model for model in models}
            _spare_the_garbage_collector()
            if self._state == "starting":
                self._turn("ready", "")
                logger.info("ready: %s", ", ".join(self._models))
        finally:
            self._loaded.set()

    @property
    def is_loaded(self) -> bool:
        """Whether loading has ended, well or not."""
        return self._loaded.is_set()

    async def loaded(self) -> None:
        """Waits for the end of loading, at most as long as a request may take.

        Workers share a port: once one of them is ready, requests reach those that are not.
        """
        if not self._loaded.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.deadline_ms / 1000):
                    await self._loaded.wait()

    def _load_all(self) -> list[Model]:
        root = self.settings.artifacts
        return [load(folder, self.settings, self.tally) for folder in find_artifacts(root)]

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

    def models(self) -> list[Model]:
        """All loaded models, the default first.

        Raises:
            NotReady: the artifacts are not loaded.
        """
        if not self._models:
            raise NotReady(f"{self._state}: {self._reason}")
        return list(self._models.values())

    def model(self, name: str | None) -> Model:
        """The model of that name; the default if there is none.

        Raises:
            NotReady: the artifacts are not loaded.
            ModelNotFound: no such model.
        """
        first = self.models()[0]
        if name is None:
            return first
        found = self._models.get(name)
        if found is None:
            known = ", ".join(self._models)
            raise ModelNotFound(f"no model '{name:.60}'; loaded: {known}", path=("model",))
        return found

    @contextmanager
    def running(self) -> Iterator[None]:
        """Drains when the process is asked to end, before the server closes its sockets.

        To be entered by the thread that computes, before anything is loaded.
        """
        try:
            with flushed_subnormals(), _delayed_exit(self.drain, self.settings.drain_seconds):
                yield
        finally:
            self.drain()
            self.tally.flush()
            forget_worker()


def _spare_the_garbage_collector() -> None:
    """Takes what was loaded out of its sight, and lets it look at requests less often.

    Their lists of ids have no cycles, and each look goes through every id of them.
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
