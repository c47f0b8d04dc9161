"""`persona explain`: which clicks the model attends to, as a table and a picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from persona.artifact.titles import Titles
    from persona.columns import ClickColumn
    from persona.contract import Embeddings, Floats, ItemId, Recommendations, Result, Scores
    from persona.engine.model import Model

FORMATS = (".png", ".svg", ".pdf")


def explain(
    history: Annotated[
        str,
        typer.Option(help="Item ids, oldest to newest: separated by commas, or as a JSON list."),
    ],
    output: Annotated[
        Path | None, typer.Option(help="Also draw a picture: .png, .svg or .pdf.")
    ] = None,
    artifacts: Annotated[Path, typer.Option(help="Folder with NAME/VERSION/ folders.")] = Path(
        "artifacts"
    ),
    model: Annotated[
        str | None, typer.Option(help="Name of the model.  [default: the default model]")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Draw every block and head at every position.")
    ] = False,
    candidates: Annotated[
        str | None,
        typer.Option(
            help="Item ids: show the clicks that each one attends to (source-target models)."
        ),
    ] = None,
    times: Annotated[
        str | None,
        typer.Option(
            help="Times of the clicks in seconds, separated by commas, if the model reads time."
        ),
    ] = None,
    now: Annotated[
        float | None, typer.Option(help="Time of asking in seconds.  [default: the newest click's]")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Column of the clicks: event=view,view,cart; may be repeated."),
    ] = None,
    next_items: Annotated[
        int | None,
        typer.Option("--next", min=1, help="Show this many recommended items, with reasons."),
    ] = None,
) -> None:
    """Show which clicks of a history the model attends to.

    Prints the weights of the start token and of every click, for each head. Needs no service. Items
    have the names in the artifact. A star marks unknown items.
    If the model reads more than the item of a click, give as many values with the other options.

        persona explain --history "frontpage,news,news,sports" --output attention.png
    """
    if output is not None and output.suffix not in FORMATS:
        raise typer.BadParameter(f"{output}: the picture's name ends with {', '.join(FORMATS)}")
    if full + (candidates is not None) + (next_items is not None) > 1:
        raise typer.BadParameter("give one of --full, --candidates and --next")
    if full and output is None:
        raise typer.BadParameter("--full draws a picture: give --output")
    from persona.engine import Engine

    found = Engine.open(artifacts).registry.find(model)
    others = {} if times is None else {"time": _numbers("--times", times.split(","))}
    others |= dict(_column(word, found.manifest.columns) for word in column or ())
    reader = _Reader(found, history, others, now)
    if candidates is not None:
        reader.show_candidates(candidates, output)
    elif next_items is not None:
        reader.show_next(next_items, output)
    else:
        reader.show_embedding(output, full=full)
    if output is not None:
        Console().print(f"{output} drawn", style="dim", highlight=False)


@dataclass(frozen=True)
class _Reader:
    """Reads one history with one model."""

    model: "Model"
    history: str
    others: dict[str, list[Any]]  # columns of the clicks beside the item
    now: float | None  # time of asking

    def show_embedding(self, output: Path | None, *, full: bool) -> None:
        """Shows the weights behind the user embedding; `--full` draws all weights."""
        from persona.contract import Embeddings

        pooled = self._ask(Embeddings("pooled"))
        assert pooled.pooled_attention is not None  # noqa: S101  # what was wanted
        clicks = self._names(pooled.items)
        _print_clicks(clicks, pooled.pooled_attention)
        if output is None:
            return
        from persona.cli.attention_plot import draw_full, draw_pooled, save

        about = self._about(pooled)
        if full:
            weights = self._ask(Embeddings("full")).full_attention
            assert weights is not None  # noqa: S101  # what was wanted
            title = f"{self._title}: what every position looks at"
            save(draw_full(clicks, weights, title, about), output)
        else:
            title = f"{self._title}: what the user embedding looks at"
            save(draw_pooled(clicks, pooled.pooled_attention, title, about), output)

    def show_candidates(self, candidates: str, output: Path | None) -> None:
        """Shows the weights that each candidate gives to the clicks."""
        from persona.contract import Scores

        chosen = item_ids(candidates, self.model.artifact.item_ids)
        if not chosen:
            raise typer.BadParameter("--candidates needs at least one item")
        result = self._ask(Scores([chosen], attention=True))
        scores, weights = result.scores, result.candidate_attention
        assert scores is not None and weights is not None  # noqa: S101, PT018  # what was wanted
        clicks, names = self._names(result.items), self._names(chosen)
        _print_candidates(names, scores, clicks, weights)
        if output is None:
            return
        from persona.cli.attention_plot import draw_candidates, save

        rated = [f"{item}  {score:+.2f}" for item, score in zip(names, scores, strict=True)]
        title = f"{self._title}: which clicks speak for a candidate"
        about = f"{self._about(result)}; scores beside names"
        save(draw_candidates(clicks, rated, weights, title, about), output)

    def show_next(self, k: int, output: Path | None) -> None:
        """Shows the recommended items, and the contribution of each click to their scores."""
        from persona.contract import Recommendations

        result = self._ask(Recommendations(k, reasons=True))
        scores, reasons = result.scores, result.reasons
        assert scores is not None and reasons is not None  # noqa: S101, PT018  # what was wanted
        clicks, names = self._names(result.items), self._names(result.recommended)
        _print_next(names, scores, clicks, reasons)
        if output is None:
            return
        from persona.cli.attention_plot import draw_reasons, save

        rated = [f"{item}  {score:+.2f}" for item, score in zip(names, scores, strict=True)]
        title = f"{self._title}: which clicks speak for the next items"
        about = f"{self._about(result)}; scores beside names, each the sum of its row"
        save(draw_reasons(clicks, rated, reasons, result.base_scores, title, about), output)

    def _ask(self, want: "Embeddings | Scores | Recommendations") -> "Result":
        from persona.contract import ITEM_ID, Query

        items = item_ids(self.history, self.model.artifact.item_ids)
        clicks = {name: [values] for name, values in {ITEM_ID: items, **self.others}.items()}
        return self.model.run(Query(clicks, want, now=[self.now])).histories[0]

    @property
    def _title(self) -> str:
        return f"{self.model.manifest.name} {self.model.manifest.version}"

    @cached_property
    def _titles(self) -> "Titles":
        from persona.artifact.titles import Titles

        return Titles(self.model.artifact)

    def _names(self, items: "Sequence[ItemId]") -> list[str]:
        catalogue = self.model.catalogue
        return [
            self._titles.of_row(row).name if row < catalogue.n_items else f"{item}*"
            for item, row in zip(items, catalogue.rows(items), strict=True)
        ]

    def _about(self, result: "Result") -> str:
        kind = self.model.manifest.architecture
        parts = [
            f"{kind.similarity} similarity, {kind.normalisation}, {kind.pooling} pooling",
            f"{len(result.items)} clicks",
        ]
        if result.truncated:
            parts.append(f"older and left out: {result.truncated}")
        if result.unknown:
            parts.append("* unknown item")
        return "; ".join(parts)


def item_ids(text: str, catalogue: "Sequence[ItemId]") -> "list[ItemId]":
    """The items in a text, as ids of the catalogue: strings or integers.

    A text that starts with `[` is read as a JSON list, which allows ids with commas.
    """
    if text.lstrip().startswith("["):
        try:
            named = [str(item) for item in json.loads(text)]
        except json.JSONDecodeError as error:
            raise typer.BadParameter(f"the list of items is not JSON: {error}") from None
    else:
        named = [part.strip() for part in text.split(",") if part.strip()]
    # If both 7 and "7" are items, the text means the string.
    known = {str(item): item for item in sorted(catalogue, key=lambda item: isinstance(item, str))}
    return [known.get(name, name) for name in named]


def _numbers(option: str, texts: Sequence[str]) -> list[float | None]:
    """The numbers that an option has between its commas; one that is empty is missing."""
    try:
        return [float(text) if text.strip() else None for text in texts]
    except ValueError as error:
        raise typer.BadParameter(f"{option}: numbers with commas between them; {error}") from None


def _column(word: str, known: "Mapping[str, ClickColumn]") -> tuple[str, list[Any]]:
    """A column's name, and its values."""
    name, _, text = word.partition("=")
    if name not in known:
        names = ", ".join(known) or "none"
        raise typer.BadParameter(f"--column {word}: the model reads the columns {names}")
    values = [value.strip() for value in text.split(",")]
    if known[name].kind == "number":
        return name, _numbers(f"--column {name}", values)
    return name, [value or None for value in values]


def _print_clicks(clicks: Sequence[str], weights: "Floats") -> None:
    """Prints the start token, then a row per click, oldest first."""
    table = Table("", "click")
    for head in range(len(weights)):
        table.add_column(f"head {head + 1}", justify="right")
    highest = weights.max(axis=1)
    for at, click in enumerate(["start token", *clicks]):
        cells = [
            f"[bold]{weight:.3f}[/bold]" if weight == top else f"{weight:.3f}"
            for weight, top in zip(weights[:, at], highest, strict=True)
        ]
        table.add_row(str(at) if at else "", escape(click), *cells, end_section=at == 0)
    Console().print(table)


def _print_candidates(
    candidates: Sequence[str], scores: "Floats", clicks: Sequence[str], weights: "Floats"
) -> None:
    """Prints a row per candidate: its score, and each head's click with the largest weight."""
    table = Table("candidate")
    table.add_column("score", justify="right")
    for head in range(weights.shape[1]):
        table.add_column(f"head {head + 1} looks most at")
    for candidate, score, heads in zip(candidates, scores, weights, strict=True):
        most = [f"{clicks[row.argmax()]} {row.max():.3f}" for row in heads] if clicks else []
        table.add_row(escape(candidate), f"{score:+.3f}", *map(escape, most))
    Console().print(table)


def _print_next(
    items: Sequence[str], scores: "Floats", clicks: Sequence[str], reasons: "Floats"
) -> None:
    """Prints a row per item: its score, and the click that contributed most."""
    table = Table("next", "click that speaks for it most")
    table.add_column("score", justify="right")
    for item, score, weights in zip(items, scores, reasons, strict=True):
        most = f"{clicks[weights.argmax()]} {weights.max():+.3f}" if clicks else ""
        table.add_row(escape(item), escape(most), f"{score:+.3f}")
    Console().print(table)
