"""Finds artifacts in a folder, and opens one after verifying all its files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from persona.artifact.errors import ArtifactError
from persona.artifact.format import (
    DEFAULT,
    EVALUATION,
    EXAMPLES,
    FORMAT_VERSION,
    GOLDEN,
    ITEM_CHANGES,
    ITEM_EMBEDDINGS,
    ITEM_FEATURES,
    ITEM_IDS,
    ITEM_LEARNED,
    ITEM_PROJECTION,
    ITEM_TITLES,
    MANIFEST,
    MANIFEST_CHECKSUM,
    SIGNATURE,
    WEIGHTS,
    Evaluation,
    Example,
    Examples,
    FileFact,
    Golden,
    GraphName,
    ItemChanges,
    ItemFeatures,
    ItemTitles,
    Manifest,
    checksum,
    manifest_checksum_line,
)
from persona.artifact.signature import check_signature
from persona.contract import Floats, ItemId
from persona.features import FeatureColumn, width_of

Kind = TypeVar("Kind", bound=BaseModel)
_NEEDED = (WEIGHTS, ITEM_EMBEDDINGS, ITEM_IDS, GOLDEN)
_ITEM_IDS: TypeAdapter[list[ItemId]] = TypeAdapter(list[ItemId])


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: every file is present and equal to its checksum."""

    folder: Path
    manifest: Manifest
    golden: Golden

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the manifest, which has the checksums of all other files."""
        return checksum(self.folder / MANIFEST).sha256

    @cached_property
    def item_ids(self) -> list[ItemId]:
        """The catalogue: item_ids[i] belongs to row i. Read on first use.

        Raises:
            ArtifactError: the file is malformed, or has more or fewer ids than the manifest says.
        """
        path = self.folder / ITEM_IDS
        try:
            item_ids = _ITEM_IDS.validate_json(path.read_bytes(), strict=True)
        except ValidationError as error:
            raise ArtifactError(f"{path}: {_first(error)}") from None
        if len(item_ids) != self.manifest.n_items:
            raise ArtifactError(
                f"{path}: {len(item_ids)} ids, the manifest says {self.manifest.n_items}"
            )
        return item_ids

    def evaluation(self) -> Evaluation | None:
        """The cases for comparing versions; None if the artifact has none.

        Raises:
            ArtifactError: the file is malformed.
        """
        if EVALUATION not in self.manifest.files:
            return None
        return _read_json(self.folder / EVALUATION, Evaluation)

    @cached_property
    def item_titles(self) -> ItemTitles:
        """Names and links of the items; both None if the artifact has none.

        Raises:
            ArtifactError: the file is malformed, or has more or fewer entries than items.
        """
        if ITEM_TITLES not in self.manifest.files:
            return ItemTitles()
        path = self.folder / ITEM_TITLES
        titles = _read_json(path, ItemTitles)
        for column, entries in (("names", titles.names), ("links", titles.links)):
            if entries is not None and len(entries) != self.manifest.n_items:
                raise ArtifactError(
                    f"{path}: {len(entries)} {column}, the manifest says {self.manifest.n_items}"
                )
        return titles

    @cached_property
    def changes(self) -> ItemChanges:
        """The changes of the catalogue after training; by default none.

        Raises:
            ArtifactError: the file is malformed, or has more trained items than there are items.
        """
        n_items = self.manifest.n_items
        if ITEM_CHANGES not in self.manifest.files:
            return ItemChanges(trained=n_items)
        path = self.folder / ITEM_CHANGES
        changes = _read_json(path, ItemChanges)
        if changes.trained > n_items:
            raise ArtifactError(f"{path}: {changes.trained} trained, the manifest says {n_items}")
        return changes

    @cached_property
    def features(self) -> list[FeatureColumn]:
        """The columns of the items' features; none if the model reads none.

        Raises:
            ArtifactError: the file is malformed.
        """
        if ITEM_FEATURES not in self.manifest.files:
            return []
        return _read_json(self.folder / ITEM_FEATURES, ItemFeatures).columns

    def projection(self) -> Floats:
        """The matrix from features to an item vector, (F, D).

        Raises:
            ArtifactError: the artifact has none, or the file is not such a matrix.
        """
        return self._matrix(ITEM_PROJECTION, width_of(self.features))

    def learned(self) -> Floats:
        """The learned part of the item vectors, added to the projected features, (n_items, D).

        Raises:
            ArtifactError: the artifact has none, or the file is not such a table.
        """
        return self._matrix(ITEM_LEARNED, self.manifest.n_items)

    @cached_property
    def examples(self) -> list[Example]:
        """Example histories; none if the artifact has none.

        Raises:
            ArtifactError: the file is malformed.
        """
        if EXAMPLES not in self.manifest.files:
            return []
        return read_examples(self.folder / EXAMPLES)

    def without(self, *graphs: GraphName) -> "Artifact":
        """The artifact without these graphs."""
        rest = {name: fact for name, fact in self.manifest.graphs.items() if name not in graphs}
        return replace(self, manifest=self.manifest.model_copy(update={"graphs": rest}))

    def graph_path(self, graph: GraphName) -> Path:
        """The path of the graph's file.

        Raises:
            ArtifactError: the artifact has no such graph.
        """
        fact = self.manifest.graphs.get(graph)
        if fact is None:
            raise ArtifactError(f"{self.folder}: the artifact carries no graph '{graph}'")
        return self.folder / fact.file

    def item_embeddings(self) -> Floats:
        """The mapped item table, (n_items + 1, D); the last row is for unknown items.

        Raises:
            ArtifactError: the file is not such a table.
        """
        return self._matrix(ITEM_EMBEDDINGS, self.manifest.n_items + 1)

    def _matrix(self, file: str, rows: int) -> Floats:
        """A mapped matrix with this many rows, as wide as the embeddings."""
        path = self.folder / file
        expected = (rows, self.manifest.architecture.width)
        if file not in self.manifest.files:
            raise ArtifactError(f"{path}: the artifact has no such file")
        try:
            table: Floats = np.load(path, mmap_mode="r")
        except (ValueError, OSError) as error:
            raise ArtifactError(f"{path}: {error}") from None
        if table.shape != expected or table.dtype != np.float32:
            raise ArtifactError(
                f"{path}: {table.dtype} {table.shape}, the manifest says float32 {expected}"
            )
        return table


def open_artifact(folder: Path, trusted_keys: Sequence[Path] = ()) -> Artifact:
    """Reads and verifies the artifact in `folder`, which is named `<name>/<version>`.

    If there are trusted keys (files of public keys), one of them must have signed it.

    Raises:
        ArtifactError: it is not signed by a trusted key; a file is missing, unlisted, malformed, or
            differs from its size or checksum in the manifest; or the folder's name differs from the
            manifest. The message names the file.
    """
    manifest = _read_manifest(folder)
    _check_folder(folder, manifest)
    if trusted_keys:
        check_signature(folder, trusted_keys)
    listed = {*manifest.files, MANIFEST, MANIFEST_CHECKSUM, SIGNATURE}
    for path in sorted(folder.iterdir()):
        if path.name not in listed:
            raise ArtifactError(f"{path}: the manifest does not list this file")
    for name in (*_NEEDED, *(graph.file for graph in manifest.graphs.values())):
        if name not in manifest.files:
            raise ArtifactError(f"{folder / MANIFEST}: does not list the file {name}")
    for name, fact in manifest.files.items():
        _verify(folder / name, fact)
    return Artifact(folder, manifest, _read_json(folder / GOLDEN, Golden))


def read_examples(path: Path) -> list[Example]:
    """Reads the example histories of a file like an artifact's `examples.json`.

    Raises:
        ArtifactError: the file is missing or malformed; the message names it and the place.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: missing")
    return _read_json(path, Examples).examples


def find_artifacts(root: Path) -> list[Path]:
    """The folder of each model's newest version; everything else as for `find_versions`."""
    return [versions[0] for versions in find_versions(root).values()]


def find_versions(root: Path) -> dict[str, list[Path]]:
    """The version folders of each model, newest first; the default model, then the others by name.

    `root` holds models (`<name>/<version>/`), or is the folder of one model, or of one version.
    The file `default` in `root` names the default model; without it, it is the first by name.

    Raises:
        ArtifactError: `root` holds no artifact, or not the one that `default` names.
    """
    if (root / MANIFEST).is_file():
        folder = root.resolve()
        return {folder.parent.name: [folder]}
    if not root.is_dir():
        raise ArtifactError(f"{root}: there is no such folder")
    if versions := _versions(root):
        folder = root.resolve()
        return {folder.name: [folder / version.name for version in versions]}
    models = [folder for folder in sorted(root.iterdir()) if folder.is_dir()]
    found = {model.name: versions for model in models if (versions := _versions(model))}
    if not found:
        raise ArtifactError(f"{root}: no artifact here; expected <name>/<version>/{MANIFEST}")
    choice = root / DEFAULT
    if choice.is_file():
        name = choice.read_text().strip()
        if name not in found:
            raise ArtifactError(f"{choice}: no model '{name:.60}' here, only {', '.join(found)}")
        found = {name: found[name]} | found
    return found


def _versions(model: Path) -> list[Path]:
    """The folders of a model's versions, newest first."""
    folders = [path for path in model.iterdir() if path.is_dir() and path.name.isdecimal()]
    return sorted(folders, key=lambda path: int(path.name), reverse=True)


def _read_manifest(folder: Path) -> Manifest:
    path, checksum_path = folder / MANIFEST, folder / MANIFEST_CHECKSUM
    for needed in (path, checksum_path):
        if not needed.is_file():
            raise ArtifactError(f"{needed}: missing")
    if checksum_path.read_bytes() != manifest_checksum_line(path):
        raise ArtifactError(f"{path}: differs from the checksum in {checksum_path}")
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from None
    version = found.get("format_version") if isinstance(found, dict) else None
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format version {version}, this version of Persona reads {FORMAT_VERSION}; "
            "export the run again"
        )
    return _read_json(path, Manifest)


def _check_folder(folder: Path, manifest: Manifest) -> None:
    place = folder.resolve()
    expected = (manifest.name, manifest.version)
    if (place.parent.name, place.name) != expected:
        raise ArtifactError(
            f"{folder}: the manifest says model '{manifest.name}' version {manifest.version}, so "
            f"the folder must end in {'/'.join(expected)}"
        )


def _verify(path: Path, fact: FileFact) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path}: missing")
    actual = checksum(path)
    if actual != fact:
        raise ArtifactError(
            f"{path}: {actual.bytes} bytes with SHA-256 {actual.sha256}, "
            f"the manifest says {fact.bytes} bytes with {fact.sha256}"
        )


def _read_json(path: Path, kind: type[Kind]) -> Kind:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ArtifactError(f"{path}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    """The place and the text of the first problem, in one line."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {problem['msg']}" if place else problem["msg"]
