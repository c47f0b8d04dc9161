"""What an operator has chosen, in a file that all workers read.

A file, because workers are processes that share no memory, may be started anew at any time, and
must all do the same: whoever starts late reads what the others have read. It is replaced whole, by
a rename, under a lock; its revision grows with each change, so that a worker can say how far it is.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, Field

CHOICES = "choices.json"


class Choice(BaseModel):
    """What was chosen for one model; by default its newest version answers."""

    weights: dict[str, float] = {}  # version -> share of the requests that name none
    loaded: list[str] = []  # beside those, for requests that name them
    unloaded: list[str] = []
    off: bool = False  # no version at all
    items: dict[str, int] = {}  # version -> revision that changed its items

    def shares(self, usable: Sequence[str]) -> dict[str, float]:
        """What each version is to have of the requests; `usable` are there, newest first."""
        weights = {version: self.weights.get(version, 0.0) for version in usable}
        total = sum(weights.values())
        if not total:
            return dict.fromkeys(usable[:1], 1.0)
        return {version: weight / total for version, weight in weights.items() if weight}

    def names(self, version: str) -> bool:
        """Whether an operator wants this very version."""
        return version in self.weights or version in self.loaded


class Choices(BaseModel):
    """What was chosen for all models."""

    revision: int = 0
    models: dict[str, Choice] = Field(default_factory=dict)

    def of(self, model: str) -> Choice:
        """What was chosen for this one."""
        return self.models.get(model, Choice())


def read_choices(folder: Path) -> Choices:
    """The choices in a state folder; none before the first."""
    path = folder / CHOICES
    return Choices.model_validate_json(path.read_bytes()) if path.is_file() else Choices()


def change_choices(folder: Path, change: Callable[[Choices], None] = lambda _: None) -> Choices:
    """Changes the choices, and returns them; without a change, workers look at everything anew."""
    with locked(folder / f"{CHOICES}.lock"):
        choices = read_choices(folder)
        change(choices)
        choices.revision += 1
        write_whole(folder / CHOICES, choices.model_dump_json().encode())
    return choices


def write_whole(path: Path, content: bytes) -> None:
    """Replaces a file in one step: who reads it meets the old content or the new."""
    building = path.with_name(f".{path.name}.{os.getpid()}")
    building.write_bytes(content)
    building.replace(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock that one process at a time can have; it ends with the process."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
