"""The operator's choices, in a file that all workers read.

Workers share no memory, may restart at any time, and must all do the same. With a file, a worker
that starts late reads what the others have read. The file is replaced by a rename, under a lock.
Its revision grows with each change, so that a worker can report the last one it has followed.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, Field

CHOICES = "choices.json"


class Choice(BaseModel):
    """The choices for one model; by default its newest version answers."""

    weights: dict[str, float] = {}  # version -> share of the requests that name no version
    loaded: list[str] = []  # further versions, for requests that name them
    unloaded: list[str] = []
    off: bool = False  # serve no version at all
    items: dict[str, int] = {}  # version -> revision that changed its items

    def shares(self, usable: Sequence[str]) -> dict[str, float]:
        """Each version's share of the requests; `usable` are the good versions, newest first."""
        weights = {version: self.weights.get(version, 0.0) for version in usable}
        total = sum(weights.values())
        if not total:
            return dict.fromkeys(usable[:1], 1.0)
        return {version: weight / total for version, weight in weights.items() if weight}

    def names(self, version: str) -> bool:
        """Whether the operator chose this version by number."""
        return version in self.weights or version in self.loaded


class Choices(BaseModel):
    """The choices for all models."""

    revision: int = 0
    models: dict[str, Choice] = Field(default_factory=dict)

    def of(self, model: str) -> Choice:
        """The choices for this model."""
        return self.models.get(model, Choice())


def read_choices(folder: Path) -> Choices:
    """The choices in a state folder; none before the first."""
    path = folder / CHOICES
    return Choices.model_validate_json(path.read_bytes()) if path.is_file() else Choices()


def change_choices(folder: Path, change: Callable[[Choices], None] = lambda _: None) -> Choices:
    """Changes the choices, and returns them; without a change, workers check everything again."""
    with locked(folder / f"{CHOICES}.lock"):
        choices = read_choices(folder)
        change(choices)
        choices.revision += 1
        write_whole(folder / CHOICES, choices.model_dump_json().encode())
    return choices


def write_whole(path: Path, content: bytes) -> None:
    """Replaces a file in one step: readers see the old content or the new one."""
    building = path.with_name(f".{path.name}.{os.getpid()}")
    building.write_bytes(content)
    building.replace(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock that one process at a time can have; it ends with the process."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
