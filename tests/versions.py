"""Versions of a model for tests: copies of an artifact, changed and signed again."""

import json
import shutil
from pathlib import Path

from persona.artifact.format import GOLDEN, MANIFEST, Evaluation, Manifest
from persona.artifact.writing import write_manifest


def add_version(source: Path, root: Path, name: str, version: str) -> Path:
    """Puts a copy of an artifact into `root` as a version, by one rename; its folder."""
    target = root / name / version
    building = target.with_name(f".{version}")
    shutil.copytree(source, building)
    sign(building, name=name, version=version)
    building.rename(target)
    return target


def sign(folder: Path, **changes: str) -> None:
    """Makes the manifest agree with files that were changed."""
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    write_manifest(folder, manifest.model_copy(update=changes))


def flip(path: Path) -> None:
    """Changes one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def disagree_with_golden(folder: Path) -> None:
    """Makes an artifact's golden pairs wrong, and signs it."""
    golden = json.loads((folder / GOLDEN).read_bytes())
    golden["pairs"][0]["user_embedding"][0] += 0.01
    (folder / GOLDEN).write_text(json.dumps(golden))
    sign(folder)


def evaluation(clicked: int) -> Evaluation:
    """Cases of the tiny artifact in which one of its items was clicked."""
    others = [f"item {number}" for number in range(20) if number != clicked]
    case = {"history": ["item 1", "item 2"], "candidates": [f"item {clicked}", *others]}
    return Evaluation.model_validate({"cases": [case]})
