"""What is known of the items of public sets, as a file that `persona train --items` reads."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet

from persona.tables.items import ITEM_ID

Rows = Iterator[dict[str, Any]]
GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy "
    "Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western"
)  # in the order of the file's flags


def articles(folder: Path) -> Rows:
    """Wikispeedia's articles, each with the categories that it is in, and those above them."""
    found: dict[str, set[str]] = {}
    for line in (folder / "wikispeedia-categories.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            article, category = line.split("\t")
            parts = category.split(".")[1:]
            levels = {".".join(parts[: n + 1]) for n in range(len(parts))}
            found.setdefault(unquote(article), set()).update(levels)
    for article, categories in found.items():
        yield {ITEM_ID: article, "categories": sorted(categories)}


def films(folder: Path) -> Rows:
    """MovieLens-100K's films, each with its genres and its year."""
    for line in (folder / "ml-100k-items.psv").read_text("latin-1").splitlines():
        number, _, date, _, _, *flags = line.split("|")
        genres = [name for name, flag in zip(GENRES.split(), flags, strict=True) if flag == "1"]
        year = float(date[-4:]) if date else None
        yield {ITEM_ID: int(number), "genres": genres, "year": year}


SETS: Mapping[str, tuple[str, Callable[[Path], Rows]]] = {
    "wikispeedia": ("wikispeedia-paths-unfinished.tsv", articles),
    "ml-100k": ("ml-100k.tsv", films),
}


def write_features(name: str, data: Path, file: Path) -> None:
    """The features of a set's items, as a file that `persona train --items` reads."""
    pa.parquet.write_table(pa.Table.from_pylist(list(SETS[name][1](data))), file)
