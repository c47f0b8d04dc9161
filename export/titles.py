"""Reads what an artifact may carry for people: names and links of the items, example histories."""

import csv
import re
import shlex
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from export.errors import TitlesError
from persona.artifact.format import LINK, Example, ItemTitles
from persona.artifact.reading import read_examples
from persona.contract import ItemId

ITEM = "{item_id}"
COLUMNS = {"item_id", "name", "link"}


@dataclass(frozen=True)
class ForPeople:
    """Where the texts come from that nothing is computed with.

    `titles` is a CSV with the columns item_id, name and link, of which either of the last two may
    be missing; `link` an address with `{item_id}` in it, for items without a link there;
    `examples` a file like an artifact's `examples.json`.
    """

    titles: Path | None = None
    link: str | None = None
    examples: Path | None = None

    def options(self) -> str:
        """The options of `persona export` that say the same, each with a space in front."""
        given = {"titles": self.titles, "link": self.link, "examples": self.examples}
        said = ((name, str(value)) for name, value in given.items() if value is not None)
        return "".join(f" --{name} {shlex.quote(value)}" for name, value in said)


def item_titles(about: ForPeople, item_ids: Sequence[ItemId]) -> ItemTitles | None:
    """The titles of a catalogue; None where nothing is said of it.

    Raises:
        TitlesError: the file or a link cannot be used; the message names the item.
    """
    if about.link is not None and ITEM not in about.link:
        raise TitlesError(f"the link '{about.link:.80}' has no {ITEM} in it")
    rows = _read_csv(about.titles, set(map(str, item_ids))) if about.titles is not None else {}
    entries = [(str(item_id), rows.get(str(item_id), {})) for item_id in item_ids]
    names = [entry.get("name") or item_id for item_id, entry in entries]
    links = [entry.get("link") or _link(about.link, item_id) for item_id, entry in entries]
    for (item_id, _), link in zip(entries, links, strict=True):
        if link is not None and not re.match(LINK, link):
            message = f"'{link:.80}' is not an http or https address"
            raise TitlesError(f"the link of item '{item_id:.60}': {message}")
    titles = ItemTitles(
        names=names if names != [item_id for item_id, _ in entries] else None,
        links=links if any(links) else None,
    )
    return titles if titles != ItemTitles() else None


def example_histories(about: ForPeople, item_ids: Sequence[ItemId]) -> list[Example]:
    """The histories to begin with; none where nothing is said of them.

    Raises:
        ArtifactError: the file is missing or malformed.
        TitlesError: the model does not know an item.
    """
    if about.examples is None:
        return []
    examples, known = read_examples(about.examples), set(item_ids)
    for example in examples:
        if unknown := [item for item in example.history if item not in known]:
            message = f"'{example.name}': the model knows no item {unknown[0]!r:.60}"
            raise TitlesError(f"{about.examples}: {message}")
    return examples


def _read_csv(path: Path, known: Container[str]) -> dict[str, dict[str, str]]:
    """The rows by item."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            columns = set(rows.fieldnames or ())
            if "item_id" not in columns or columns - COLUMNS:
                found = ", ".join(sorted(columns)) or "none"
                raise TitlesError(f"{path}: expected the columns item_id, name, link, got {found}")
            by_item = {row["item_id"]: row for row in rows}
    except UnicodeDecodeError as error:
        raise TitlesError(f"{path}: not UTF-8: {error.reason}") from None
    except OSError as error:
        raise TitlesError(f"{path}: {error.strerror}") from None
    for item_id in by_item:
        if item_id not in known:
            raise TitlesError(f"{path}: the model knows no item '{item_id:.60}'")
    return by_item


def _link(template: str | None, item_id: str) -> str | None:
    return template and template.replace(ITEM, quote(item_id, safe=""))
