"""Reads the versions in the artifacts folder, and detects changes."""

import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from persona.artifact import find_versions

ITEMS = "items"  # in the state folder


@dataclass(frozen=True)
class Version:
    """One version of a model in the folder."""

    model: str
    number: str
    folder: Path
    signature: int  # differs if a file has changed
    changed: Path | None = None  # its folder with changed items

    @property
    def name(self) -> str:
        """The name in messages."""
        return f"{self.model}/{self.number}"


def changed_folder(state: Path, revision: int, model: str, version: str) -> Path:
    """The folder of a version after a change of its items."""
    return state / ITEMS / str(revision) / model / version


def scan(root: Path) -> dict[str, list[Version]]:
    """The versions of each model, newest first; the default model first.

    Raises:
        ArtifactError: there is no version, or the model named by the file `default` is missing.
    """
    return {
        name: [Version(name, path.name, path, signature(path)) for path in folders]
        for name, folders in find_versions(root).items()
    }


def signature(folder: Path) -> int:
    """A checksum of the names, sizes and times of a folder's files; their content is not read."""
    facts = []
    with suppress(OSError):  # it is being removed: the rest differs, too
        for path in sorted(folder.iterdir()):
            found = path.stat()
            facts.append((path.name, found.st_size, found.st_mtime_ns, found.st_ino))
    return zlib.crc32(repr(facts).encode())


def signatures(found: Iterable[Iterable[Version]]) -> dict[str, int]:
    """The signature of every version, by its name."""
    return {version.name: version.signature for versions in found for version in versions}
