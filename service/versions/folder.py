"""What lies in the artifacts folder, and whether it has changed."""

import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from persona.artifact import find_versions

ITEMS = "items"  # in the state folder


@dataclass(frozen=True)
class Version:
    """One version of a model, as it lies in the folder."""

    model: str
    number: str
    folder: Path
    signature: int  # another one when a file has changed
    changed: Path | None = None  # where it lies with other items than it was trained on

    @property
    def name(self) -> str:
        """As messages name it."""
        return f"{self.model}/{self.number}"


def changed_folder(state: Path, revision: int, model: str, version: str) -> Path:
    """Where a version lies after a change of its items."""
    return state / ITEMS / str(revision) / model / version


def scan(root: Path) -> dict[str, list[Version]]:
    """The versions of each model, newest first; the default model first.

    Raises:
        ArtifactError: there is none, or not the model that the file `default` names.
    """
    return {
        name: [Version(name, path.name, path, signature(path)) for path in folders]
        for name, folders in find_versions(root).items()
    }


def signature(folder: Path) -> int:
    """A checksum of the names, sizes and times of a folder's files; it reads none of them."""
    facts = []
    with suppress(OSError):  # somebody is removing it: what is left differs, too
        for path in sorted(folder.iterdir()):
            found = path.stat()
            facts.append((path.name, found.st_size, found.st_mtime_ns, found.st_ino))
    return zlib.crc32(repr(facts).encode())


def signatures(found: Iterable[Iterable[Version]]) -> dict[str, int]:
    """The signature of every version, by its name."""
    return {version.name: version.signature for versions in found for version in versions}
