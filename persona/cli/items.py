"""`persona items`: adds, changes and hides items of an artifact, without training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from persona.artifact.item_changes import NewItem
    from persona.contract import ItemId

app = typer.Typer(
    help="Add, change and remove items of an artifact, without training.",
    no_args_is_help=True,
)
Folder = Annotated[
    Path, typer.Option("--artifact", help="Folder of a model, or of one version of it.")
]
Version = Annotated[
    str | None, typer.Option(help="Version to write.  [default: one more than the newest]")
]


@app.command()
def add(
    items: Annotated[Path, typer.Argument(help="Items: Parquet, JSON Lines or CSV.")],
    artifact: Folder,
    version: Version = None,
) -> None:
    """Write a new version with new items, or with changed features of known ones.

    The file has a column `item_id`, and either the features that the model reads or a column
    `vector`. The columns `name` and `link` are optional.

        persona items add new.parquet --artifact artifacts/shop
    """
    from persona.artifact.item_changes import NewItem
    from persona.tables.items import read_items

    found = [_new_item(row, NewItem) for row in read_items(items)]
    _write(artifact, version, found, [])


@app.command()
def remove(
    items: Annotated[list[str], typer.Argument(help="Ids of items.")],
    artifact: Folder,
    version: Version = None,
) -> None:
    """Write a new version that does not recommend these items; histories may still contain them.

    persona items remove sku-1 sku-2 --artifact artifacts/shop
    """
    from persona.artifact import find_artifacts, open_artifact

    source = open_artifact(find_artifacts(artifact)[0])
    integers = all(isinstance(one, int) for one in source.item_ids)
    ids = [int(one) if integers and one.lstrip("-").isdecimal() else one for one in items]
    _write(artifact, version, [], ids)


def _new_item(row: dict[str, Any], kind: "type[NewItem]") -> "NewItem":
    own = {name: row.pop(name, None) for name in ("item_id", "vector", "name", "link")}
    features = {name: value for name, value in row.items() if value is not None}
    return kind(features=features or None, **own)


def _write(
    folder: Path, version: str | None, items: "Sequence[NewItem]", removed: "Sequence[ItemId]"
) -> None:
    from persona.artifact import find_artifacts, open_artifact
    from persona.artifact.item_changes import ChangedItems
    from persona.artifact.writing import new_version

    source = open_artifact(find_artifacts(folder)[0])
    name, model = source.manifest.name, source.folder.resolve().parent
    number = version or _next_version(model)
    changed = ChangedItems(source, items, removed)
    with new_version(model.parent, name, number) as building:
        changed.write(building, number)
    counts = (
        f"{len(changed.added):,} added, {len(changed.changed):,} changed, {len(removed):,} hidden"
    )
    _say(f"{model / number}: {len(changed.ids):,} items; {counts}")
    if source.manifest.index is not None:
        _say("It has no index: searches read all items until `persona export --index` adds one")
    if (source.folder / "signature.ed25519").exists():
        _say("It is not signed: use `persona sign`")


def _next_version(model: Path) -> str:
    return str(1 + max(int(path.name) for path in model.iterdir() if path.name.isdecimal()))


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text, markup=False)
