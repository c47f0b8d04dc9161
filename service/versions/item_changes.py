"""New items of a model while it is served: another artifact, in the state folder, for all workers.

It is the version that is served with more rows, and has its name and number, so that choices and
answers stay as they are. The choices name it by their revision, and each worker follows. Nothing of
it is only in memory: a worker that starts anew opens it, too.
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
        """Writes the artifact, and makes it the version's choice.

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
        """The artifact as all earlier changes left it."""
        if not self.before:
            return self._model.artifact
        return open_artifact(changed_folder(self._folder, self.before, self.name, self.version))

    def take_back(self, choices: Choices) -> None:
        """The version is served as before."""
        choices.models[self.name].items[self.version] = self.before

    def sweep(self) -> None:
        """Removes what earlier changes left, which no worker opens any more."""
        for old in changed_folder(self._folder, 0, self.name, self.version).parents[2].iterdir():
            if old.name.isdecimal() and int(old.name) < self.revision:
                shutil.rmtree(old / self.name / self.version, ignore_errors=True)


async def change_items(
    watcher: Watcher, model: Model, items: Sequence[NewItem], remove: Sequence[ItemId]
) -> ItemState:
    """Adds items to a version, changes and hides them; returns when every worker has them.

    Raises:
        InvalidRequest: an item cannot be used.
        Conflict: the artifact cannot be changed, or a worker cannot open it; all stays as it was.
        DeadlineExceeded: a worker has not followed.
    """
    change = Change(watcher.folder, model, items, remove)
    try:
        reports = await watcher.choose(change)
    except ArtifactError as error:
        raise Conflict(f"the items of '{change.name}' stay as they are: {error}") from None
    if reason := state_of(change.name, reports).refused.get(change.version):
        await watcher.choose(change.take_back)
        raise Conflict(f"the items of '{change.name}' stay as they are: {reason}")
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
