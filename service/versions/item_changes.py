"""Changes the items of a running model: writes another artifact into the state folder.

The artifact is the served version with more rows. It keeps the name and the number, so choices and
answers stay the same. The choices refer to it by their revision, and each worker follows. A
restarted worker opens it too, because nothing is only in memory.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from persona.artifact import Artifact, ArtifactError, open_artifact
from persona.artifact.item_changes import ChangedItems, NewItem
from persona.artifact.writing import artifact_folder
from persona.contract import ItemId
from persona.engine.model import Model
from service.errors import Conflict
from service.versions.choices import Choices
from service.versions.folder import changed_folder
from service.versions.opening import yielding
from service.versions.operating import state_of
from service.versions.watching import Watcher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ItemState:
    """A model's items after a change."""

    model: str
    version: str
    n_items: int
    added: int
    changed: int
    hidden: int  # in all
    workers: int


class Change:
    """A change of one version's items, made while the choices are locked."""

    def __init__(
        self, folder: Path, model: Model, items: Sequence[NewItem], remove: Sequence[ItemId]
    ) -> None:
        self._folder = folder
        self._model = model
        self._items, self._remove = items, remove
        self.name, self.version = model.manifest.name, model.manifest.version
        self.before = 0
        self.revision = 0
        self.made: ChangedItems | None = None

    def __call__(self, choices: Choices) -> None:
        """Writes the artifact, and records it in the choices.

        Raises:
            InvalidRequest: an item cannot be used.
            ArtifactError: the artifact cannot be changed.
        """
        choice = choices.of(self.name).model_copy(deep=True)
        self.before, self.revision = choice.items.get(self.version, 0), choices.revision + 1
        with yielding():
            self.made = ChangedItems(self._source(), self._items, self._remove)
            target = changed_folder(self._folder, self.revision, self.name, self.version)
            with artifact_folder(target) as building:
                self.made.write(building, self.version)
                _sync(building)
        choice.items[self.version] = self.revision
        choices.models[self.name] = choice

    def _source(self) -> Artifact:
        """The artifact after all earlier changes."""
        if not self.before:
            return self._model.artifact
        return open_artifact(changed_folder(self._folder, self.before, self.name, self.version))

    def take_back(self, choices: Choices) -> None:
        """Undoes the change of the choices."""
        choices.models[self.name].items[self.version] = self.before

    def sweep(self) -> None:
        """Removes artifacts of earlier changes, which no worker opens any more."""
        for old in changed_folder(self._folder, 0, self.name, self.version).parents[2].iterdir():
            if old.name.isdecimal() and int(old.name) < self.revision:
                shutil.rmtree(old / self.name / self.version, ignore_errors=True)


async def change_items(
    watcher: Watcher, model: Model, items: Sequence[NewItem], remove: Sequence[ItemId]
) -> ItemState:
    """Adds, changes and hides items of a version; returns when every worker has the change.

    Raises:
        InvalidRequest: an item cannot be used.
        Conflict: the artifact cannot be changed, or a worker cannot open it; nothing has changed.
        DeadlineExceeded: a worker has not followed.
    """
    change = Change(watcher.folder, model, items, remove)
    try:
        reports = await watcher.choose(change)
    except ArtifactError as error:
        raise Conflict(f"the items of '{change.name}' have not changed: {error}") from None
    if reason := state_of(change.name, reports).refused.get(change.version):
        await watcher.choose(change.take_back)
        raise Conflict(f"the items of '{change.name}' have not changed: {reason}")
    await asyncio.to_thread(change.sweep)
    assert change.made is not None  # noqa: S101  # or nothing was chosen
    made = change.made
    counts = (len(made.ids), len(made.added), len(made.changed), len(made.hidden))
    logger.info(
        "%s/%s: %d items, %d added, %d changed, %d hidden", change.name, change.version, *counts
    )
    return ItemState(change.name, change.version, *counts, len(reports))


def _sync(folder: Path) -> None:
    """Waits until the files are on the disk."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
