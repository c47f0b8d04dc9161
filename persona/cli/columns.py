"""The options of every verb that reads tables: the columns, and the rows that count."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from persona.columns import ColumnKind, check_columns
from persona.tables.options import TableOptions

if TYPE_CHECKING:
    from model.training.recipe import Recipe

TABLE = "Tables"  # heading in the help
ESCAPES = {"tab": "\t", "\\t": "\t", "space": " "}


def _unescaped(text: str | None) -> str | None:
    return text if text is None else ESCAPES.get(text, text)


def _option(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=TABLE, **more)


OPTIONS: dict[str, Any] = {
    "user": Annotated[str | None, _option("Column of the user: a name, or a number from 1.")],
    "item": Annotated[str | None, _option("Column of the item.")],
    "time": Annotated[
        str | None, _option("Column of the time. Without one, rows must be in click order.")
    ],
    "history": Annotated[
        str | None, _option("Column of item lists, oldest first, if there is one user per row.")
    ],
    "where": Annotated[
        str | None, _option("Read only matching rows: SQL such as \"event = 'view'\".")
    ],
    "rating": Annotated[str | None, _option("Column for --min-rating.  [default: rating]")],
    "min_rating": Annotated[float | None, _option("Ignore rows with a lower rating.")],
    "delimiter": Annotated[
        str | None,
        _option("Separator of columns: , ; :: or tab.  [detected]", callback=_unescaped),
    ],
    "header": Annotated[
        bool | None, _option("Whether the first line names the columns.  [detected]")
    ],
    "item_separator": Annotated[
        str | None,
        _option("Separator of the items of a history in text.  [detected]", callback=_unescaped),
    ],
}
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        help="msnbc, sasrec, wikispeedia, mind, parquet, csv or jsonl.  [detected]",
    ),
]


DataOption = Annotated[
    str | None,
    typer.Option(
        help="Clicks, in place of the recipe's `data.path`: a file, folder, glob or URL.",
    ),
]


ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="Column of the clicks that the encoder reads: event=category or price=number; may be "
        "repeated.",
        rich_help_panel=TABLE,
    ),
]


def click_columns(words: list[str] | None) -> dict[str, ColumnKind]:
    """The columns that `--column` names, with their kinds."""
    kinds: dict[str, ColumnKind] = {kind: kind for kind in get_args(ColumnKind)}
    found = dict[str, ColumnKind]()
    for word in words or ():
        name, _, kind = word.partition("=")
        if kind not in kinds:
            raise typer.BadParameter(f"--column {word}: give NAME=category or NAME=number")
        found[name] = kinds[kind]
    try:
        check_columns(found)
    except ValueError as error:
        raise typer.BadParameter(f"--column: {error}") from None
    return found


@dataclass(frozen=True)
class Clicks:
    """The options about the clicks, which complete the recipe's `[data]`."""

    path: str | None
    format: str | None
    table: TableOptions
    columns: dict[str, ColumnKind] = field(default_factory=dict)  # that the encoder reads

    def chosen(self, recipe: "Recipe") -> "Recipe":
        """The recipe, with the options in place of its own values."""
        data = recipe.data.with_table(self.table)
        given = {"format": self.format, "columns": self.columns or None}
        changed = {name: value for name, value in given.items() if value is not None}
        return recipe.model_copy(update={"data": data.model_copy(update=changed)})


def reads_tables(verb: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the options above, as one argument `table` of type `TableOptions`."""

    @wraps(verb)
    def run(*words: Any, **given: Any) -> None:
        chosen = {name: given.pop(name) for name in OPTIONS}
        verb(*words, table=TableOptions(**chosen), **given)

    # Typer reads the options of a verb from its signature.
    own = [p for p in inspect.signature(verb).parameters.values() if p.name != "table"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, keyword, default=None, annotation=annotation)
        for name, annotation in OPTIONS.items()
    ]
    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]  # of any function
    run.__annotations__ = {p.name: p.annotation for p in (*own, *added)}
    return run
