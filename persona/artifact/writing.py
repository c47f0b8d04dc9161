"""Writes an artifact's folder completely or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from persona.artifact.errors import ArtifactError
from persona.artifact.format import (
    MANIFEST,
    MANIFEST_CHECKSUM,
    Manifest,
    check_name,
    checksum,
    manifest_checksum_line,
)


@contextmanager
def new_version(root: Path, name: str, version: str) -> Iterator[Path]:
    """A folder to fill, which becomes `root/<name>/<version>/` by one rename at the end.

    Raises:
        ArtifactError: the version exists, or the name or version is not allowed.
    """
    check_name(name, version)
    target = root / name / version
    if target.exists():
        raise ArtifactError(f"{target} exists; versions are never overwritten, choose another")
    with artifact_folder(target) as building:
        yield building
        os.sync()


@contextmanager
def artifact_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` by one rename at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield building
        building.chmod(0o755)  # mkdtemp's 0700 would lock out the container's user
        building.rename(target)
    except BaseException:
        shutil.rmtree(building)
        raise


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest with the checksums of all other files, and its own checksum file."""
    written = {MANIFEST, MANIFEST_CHECKSUM}
    files = {
        path.name: checksum(path) for path in sorted(folder.iterdir()) if path.name not in written
    }
    manifest = manifest.model_copy(update={"files": files})
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    (folder / MANIFEST_CHECKSUM).write_bytes(manifest_checksum_line(folder / MANIFEST))


def write_json(path: Path, value: object) -> None:
    """Writes readable JSON."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
