"""Adds, changes and hides items of an artifact in a new version, without PyTorch.

The item table gets more rows, and its last row, for unknown items, moves to the new end. The
graphs, ids, titles and manifest change accordingly; everything else is copied. An index of the
items is left out, because it would not contain the new items.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from persona.artifact.catalogue import LARGE_CATALOGUE, write_catalogue
from persona.artifact.errors import ArtifactError
from persona.artifact.format import (
    GOLDEN,
    ITEM_CHANGES,
    ITEM_EMBEDDINGS,
    ITEM_IDS,
    ITEM_INDEX,
    ITEM_LEARNED,
    ITEM_SLOTS,
    ITEM_TITLES,
    MANIFEST,
    MANIFEST_CHECKSUM,
    SIGNATURE,
    Golden,
    GoldenPair,
    ItemChanges,
    ItemTitles,
)
from persona.artifact.graph_rows import with_rows
from persona.artifact.reading import Artifact
from persona.artifact.writing import write_json, write_manifest
from persona.contract import Floats, InvalidRequest, ItemId
from persona.features import Values, encode


@dataclass(frozen=True)
class NewItem:
    """An item to add, or to change if the model knows its id, with features or a vector."""

    item_id: ItemId
    features: Values | None = None
    vector: Sequence[float] | None = None
    name: str | None = None
    link: str | None = None


class ChangedItems:
    """An artifact's items after a change."""

    def __init__(
        self, artifact: Artifact, items: Sequence[NewItem], remove: Sequence[ItemId] = ()
    ) -> None:
        """Makes the vectors.

        Args:
            artifact: the artifact to change.
            items: each id once; a hidden item becomes visible again.
            remove: ids of items to hide.

        Raises:
            InvalidRequest: an item occurs twice, has no usable features or vector, or is
                to be removed but unknown.
        """
        self._artifact = artifact
        self._row_of = {item_id: row for row, item_id in enumerate(artifact.item_ids)}
        self._items = {item.item_id: item for item in items}
        if len(self._items) < len(items):
            raise InvalidRequest("an item occurs more than once", "items")
        for item_id in remove:
            if item_id not in self._row_of:
                raise InvalidRequest(f"the model knows no item {item_id!r:.60}", "remove")
        self.added = [item_id for item_id in self._items if item_id not in self._row_of]
        self.changed = [item_id for item_id in self._items if item_id in self._row_of]
        self.ids = [*artifact.item_ids, *self.added]
        hidden = dict.fromkeys([*artifact.changes.hidden, *remove])
        self.hidden = [item_id for item_id in hidden if item_id not in self._items]
        self._row_of |= {item_id: row for row, item_id in enumerate(self.ids)}
        self._vectors, self._learned = self._tables()

    def _tables(self) -> tuple[Floats, Floats | None]:
        """The item table (n_items + 1, D), and its learned part if there are features."""
        old = self._artifact.item_embeddings()
        new = np.zeros((len(self.added), old.shape[1]), np.float32)
        vectors = np.concatenate([old[:-1], new, old[-1:]])
        learned = None
        if self._artifact.features:
            learned = np.concatenate([self._artifact.learned(), new])
        described = [item for item in self._items.values() if item.vector is None]
        if described:
            rows = [self._row_of[item.item_id] for item in described]
            vectors[rows] = self._projected(described)
            if learned is not None:
                vectors[rows] += learned[rows]
        for item in self._items.values():
            if item.vector is not None:
                row = self._row_of[item.item_id]
                vectors[row] = _vector(item, old.shape[1])
                if learned is not None:
                    learned[row] = 0
        return vectors, learned

    def _projected(self, items: Sequence[NewItem]) -> Floats:
        columns = self._artifact.features
        if not columns:
            name = self._artifact.manifest.name
            message = f"model '{name}' reads no features of items, so a vector is needed"
            raise InvalidRequest(f"item {items[0].item_id!r:.60}: {message}", "items")
        pairs = [(item.item_id, item.features or {}) for item in items]
        for item_id, features in pairs:
            if all(value is None for value in features.values()):
                raise InvalidRequest(f"item {item_id!r:.60}: no feature and no vector", "items")
        return encode(columns, pairs) @ self._artifact.projection()

    def write(self, folder: Path, version: str) -> None:
        """Fills an empty folder with the changed artifact.

        Raises:
            ArtifactError: a graph holds its item table in an unexpected way.
        """
        artifact, manifest = self._artifact, self._artifact.manifest
        left_out = {MANIFEST, MANIFEST_CHECKSUM, SIGNATURE, ITEM_INDEX, ITEM_EMBEDDINGS}
        for path in artifact.folder.iterdir():
            if path.name not in left_out:
                shutil.copyfile(path, folder / path.name)
        np.save(folder / ITEM_EMBEDDINGS, self._vectors)
        if self._learned is not None:
            np.save(folder / ITEM_LEARNED, self._learned)
        if self.added:
            self._write_ids(folder)
            self._write_graphs(folder)
        self._write_titles(folder)
        if not (pairs := list(self._golden())):
            raise ArtifactError(f"{artifact.folder / GOLDEN}: every pair has an item that changes")
        golden = Golden(tolerance=artifact.golden.tolerance, pairs=pairs)
        write_json(folder / GOLDEN, golden.model_dump())
        changes = ItemChanges(trained=artifact.changes.trained, hidden=self.hidden)
        write_json(folder / ITEM_CHANGES, changes.model_dump())
        facts = {
            "version": version,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "n_items": len(self.ids),
            "index": None,
        }
        write_manifest(folder, manifest.model_copy(update=facts))

    def _write_ids(self, folder: Path) -> None:
        write_json(folder / ITEM_IDS, self.ids)
        if len(self.ids) > LARGE_CATALOGUE or (folder / ITEM_SLOTS).exists():
            write_catalogue(self.ids, folder)

    def _write_graphs(self, folder: Path) -> None:
        for graph in self._artifact.manifest.graphs.values():
            path = folder / graph.file
            try:
                changed = with_rows(path.read_bytes(), ITEM_EMBEDDINGS, *self._vectors.shape)
            except ValueError as error:
                raise ArtifactError(f"{path}: {error}") from None
            path.write_bytes(changed)

    def _write_titles(self, folder: Path) -> None:
        titles = self._artifact.item_titles
        names = _extended(titles.names, {i.item_id: i.name for i in self._items.values()}, self.ids)
        links = _extended(titles.links, {i.item_id: i.link for i in self._items.values()}, self.ids)
        if names is not None or links is not None:
            named = names and [
                name or str(item_id) for item_id, name in zip(self.ids, names, strict=True)
            ]
            found = ItemTitles(names=named, links=links)
            write_json(folder / ITEM_TITLES, found.model_dump())

    def _golden(self) -> Iterator[GoldenPair]:
        """The pairs that still hold: their histories contain no changed item.

        An unknown item of a pair may be among the new items.
        """
        changed, added = set(self.changed), set(self.added)
        for pair in self._artifact.golden.pairs:
            if changed.isdisjoint(pair.history):
                history = [self._unknown(item) if item in added else item for item in pair.history]
                yield pair.model_copy(update={"history": history})

    def _unknown(self, item_id: ItemId) -> ItemId:
        while item_id in self._row_of:
            item_id = item_id + 1 if isinstance(item_id, int) else f"{item_id}?"
        return item_id


def _extended(
    old: Sequence[str | None] | None, given: Mapping[ItemId, str | None], ids: Sequence[ItemId]
) -> list[str | None] | None:
    """Names or links by row; None if there are none."""
    if old is None and not any(given.values()):
        return None
    before = [*(old or []), *([None] * (len(ids) - len(old or [])))]
    return [given.get(item_id) or own for item_id, own in zip(ids, before, strict=True)]


def _vector(item: NewItem, width: int) -> Floats:
    try:
        vector = np.asarray(item.vector, np.float32)
    except (TypeError, ValueError):
        vector = np.empty(0, np.float32)
    if vector.shape != (width,) or not np.isfinite(vector).all():
        message = f"the vector has {_length(item.vector)}, expected {width} finite numbers"
        raise InvalidRequest(f"item {item.item_id!r:.60}: {message}", "items")
    return vector


def _length(vector: Iterable[float] | None) -> str:
    return f"{len(list(vector or []))} numbers"
