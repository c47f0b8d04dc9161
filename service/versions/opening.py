"""Opens one version: copies and verifies it, replays the golden pairs, checks the quality."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from persona.artifact import ArtifactError
from persona.engine import Limits
from persona.engine.engine import OnRun
from persona.engine.model import Model
from service.versions.copies import Copies, release_with
from service.versions.folder import Version

# While a version is opened, the answering thread waits at most this long for Python's lock.
SWITCH_INTERVAL_S = 0.0005


class Opener:
    """Opens versions for one worker, in a thread that does nothing else."""

    def __init__(self, copies: Copies, limits: Limits, on_run: OnRun, max_loss: float) -> None:
        self._copies = copies
        self._limits = limits
        self._on_run = on_run
        self._max_loss = max_loss

    def open(self, version: Version, running: Model | None) -> Model:
        """The model of a version; `running` is the model that it would replace.

        Raises:
            ArtifactError: it is broken; the message names the file.
        """
        if version.changed is not None:
            return self._open_changed(version, version.changed, running)
        folder, held = self._copies.take(version.folder)
        on_run = partial(self._on_run, version.model, version.number)
        try:
            with self._copies.turn(running is not None), yielding():
                model = Model(folder, self._limits, on_run, running)
        except Exception as error:
            if held is not None:
                os.close(held)
                self._copies.drop(version.folder)
            if isinstance(error, ArtifactError):
                message = str(error).replace(str(folder), str(version.folder))
                raise ArtifactError(message) from error
            raise
        if held is not None:
            release_with(model, held)
        return model

    def _open_changed(self, version: Version, folder: Path, running: Model | None) -> Model:
        """Opens a version of the state folder, which belongs to the service: no copy, no signature.

        It does not wait for other workers, because a client waits for the change.
        """
        limits = replace(self._limits, trusted_keys=())
        with yielding():
            on_run = partial(self._on_run, version.model, version.number)
            return Model(folder, limits, on_run, running)

    def compare(self, new: Model, running: Model) -> None:
        """Compares a new version with the running one, on the evaluation cases of the new one.

        Raises:
            ArtifactError: it predicts clicks worse, by more than the allowed loss.
        """
        evaluation = new.artifact.evaluation()
        if evaluation is None or self._max_loss >= 1:
            return
        with yielding():
            before, after = running.quality(evaluation), new.quality(evaluation)
        if after < before * (1 - self._max_loss):
            raise ArtifactError(
                f"mean reciprocal rank {after:.4f} on its own evaluation cases, version "
                f"{running.manifest.version} has {before:.4f}: a loss of {1 - after / before:.1%}, "
                f"limit {self._max_loss:.1%}"
            )


@contextmanager
def yielding() -> Iterator[None]:
    """Holds Python's lock only for short times."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
