"""Names and links of an artifact's items, and a search in the names.

The model does not use names. If an artifact has none, the ids are the names.
"""

import heapq
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from persona.artifact.reading import Artifact
from persona.contract import ItemId

MOST_RANKED = 10_000  # takes 30 ms; a single letter is in nearly every name of a million


@dataclass(frozen=True)
class ItemTitle:
    """An item as people see it."""

    item_id: ItemId
    name: str
    link: str | None = None
    known: bool = True


class Titles:
    """The titles of an artifact's items. They take memory, so use one object per artifact."""

    def __init__(self, artifact: Artifact) -> None:
        """Reads the files.

        Raises:
            ArtifactError: a file is malformed.
        """
        titles = artifact.item_titles
        self._ids = artifact.item_ids
        self._names: Sequence[str] = titles.names or list(map(str, self._ids))
        self._links = titles.links
        self._folded = [
            folded(name) if name == str(item_id) else f"{folded(name)}\n{folded(str(item_id))}"
            for name, item_id in zip(self._names, self._ids, strict=True)
        ]

    def of_row(self, row: int) -> ItemTitle:
        """The title of a row of the item table."""
        link = self._links[row] if self._links is not None else None
        return ItemTitle(self._ids[row], self._names[row], link)

    def search(self, text: str, k: int) -> list[ItemTitle]:
        """At most k items with the text in their name or id, the closest first.

        Names that equal the text come first, then names that begin with it, then names with a word
        that begins with it; shorter names come before longer ones. Case and accents are ignored.
        If more than `MOST_RANKED` items match, only the first ones of the catalogue are ranked. An
        empty text finds the first k items.
        """
        wanted = folded(text.strip())
        found = (row for row, name in enumerate(self._folded) if wanted in name)
        ranked = islice(found, MOST_RANKED if wanted else k)
        rows = heapq.nsmallest(k, ranked, key=lambda row: self._distance(wanted, row))
        return [self.of_row(row) for row in rows]

    def _distance(self, wanted: str, row: int) -> tuple[int, int, int]:
        if not wanted:
            return 0, 0, row
        name = self._folded[row]
        parts = name.split("\n")
        if wanted in parts:
            kind = 0
        elif any(part.startswith(wanted) for part in parts):
            kind = 1
        else:
            kind = 2 if f" {wanted}" in name else 3
        return kind, len(name), row


def folded(text: str) -> str:
    """A text without case and accents."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).casefold()
