"""`persona explain`: which clicks a user embedding looks at, as a table and a picture."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from array import array

    from matplotlib.figure import Figure

    from persona.attention_plot import Weights
    from service.artifact import Artifact, GraphName, ItemId
    from service.histories import ItemIndex, MappedHistory
    from service.session import Engine, Outputs

FORMATS = (".png", ".svg", ".pdf")


def explain(
    history: Annotated[
        str, typer.Option(help="Item ids, oldest to newest: with commas, or as a JSON list.")
    ],
    output: Annotated[Path, typer.Option(help="Picture: .png, .svg or .pdf.")] = Path(
        "attention.png"
    ),
    artifacts: Annotated[Path, typer.Option(help="Folder of <name>/<version>/.")] = Path(
        "artifacts"
    ),
    model: Annotated[
        str | None, typer.Option(help="Name of the model.  [default: the first]")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Draw every block and head at every position.")
    ] = False,
    candidates: Annotated[
        str | None,
        typer.Option(help="Item ids: draw which clicks speak for each (source-target models)."),
    ] = None,
) -> None:
    """Show what the user embedding of one history looks at.

    Prints the weight of every click and head, the start token's share first, and draws them.
    No service is needed. Items that the model does not know are marked with a star.

        persona explain --history "frontpage,news,news,sports" --output attention.png
    """
    if output.suffix not in FORMATS:
        raise typer.BadParameter(f"{output}: the picture's name ends with {', '.join(FORMATS)}")
    if full and candidates is not None:
        raise typer.BadParameter("give --full or --candidates, not both")
    from persona.attention_plot import save

    reading = _read(_open(artifacts, model), history)
    if candidates is not None:
        figure = _of_candidates(reading, candidates)
    elif full:
        figure = _of_every_position(reading)
    else:
        figure = _of_the_embedding(reading)
    save(figure, output)
    Console().print(f"{output} drawn", style="dim", highlight=False)


@dataclass(frozen=True)
class _Reading:
    """One history, as one model reads it."""

    engine: "Engine"
    index: "ItemIndex"
    rows: "array[int]"
    clicks: list[str]  # their names
    model: str
    about: str

    def run(self, graph: "GraphName", candidates: "array[int] | None" = None) -> "Outputs":
        from service.session import NO_CANDIDATES, Row

        (outputs,) = self.engine.run(graph, [Row(self.rows, candidates or NO_CANDIDATES)])
        return outputs


def _read(artifact: "Artifact", history: str) -> _Reading:
    from service.catalogue import open_rows
    from service.histories import ItemIndex
    from service.session import Engine

    manifest = artifact.manifest
    index = ItemIndex(open_rows(artifact), manifest.architecture.max_length)
    mapped = index.map_history(item_ids(history, artifact.item_ids))
    pairs = zip(mapped.items, mapped.rows, strict=True)
    names = [f"{item}*" if row == manifest.n_items else str(item) for item, row in pairs]
    model = f"{manifest.name} {manifest.version}"
    return _Reading(Engine(artifact), index, mapped.rows, names, model, _about(artifact, mapped))


def _of_the_embedding(reading: _Reading) -> "Figure":
    from persona.attention_plot import draw_pooled

    _, weights = reading.run("attention")  # (H, 1 + L)
    weights = weights[:, : 1 + len(reading.clicks)]
    _print_clicks(reading.clicks, weights)
    title = f"{reading.model}: what the user embedding looks at"
    return draw_pooled(reading.clicks, weights, title, reading.about)


def _of_every_position(reading: _Reading) -> "Figure":
    from persona.attention_plot import draw_full

    _of_the_embedding(reading)  # for its table
    used = 1 + len(reading.clicks)
    _, weights = reading.run("attention_full")  # (blocks, H, 1 + L, 1 + L)
    title = f"{reading.model}: what every position looks at"
    return draw_full(reading.clicks, weights[:, :, :used, :used], title, reading.about)


def _of_candidates(reading: _Reading, candidates: str) -> "Figure":
    from persona.attention_plot import draw_candidates

    artifact = reading.engine.artifact
    if "score" not in artifact.manifest.graphs:
        raise typer.BadParameter(
            f"model {reading.model} has self-attention alone; candidates need one that was "
            "trained with attention = 'source_target'"
        )
    chosen = item_ids(candidates, artifact.item_ids)
    rows = reading.index.map_candidates(chosen, ("candidates",))
    if not rows:
        raise typer.BadParameter("--candidates names no item")
    scores, weights = reading.run("score", rows)  # (N,), (N, H, L)
    weights = weights[:, :, : len(reading.clicks)]
    _print_candidates(chosen, scores, reading.clicks, weights)
    rated = [f"{item}  {score:+.2f}" for item, score in zip(chosen, scores, strict=True)]
    title = f"{reading.model}: which clicks speak for a candidate"
    about = f"{reading.about}; scores beside names"
    return draw_candidates(reading.clicks, rated, weights, title, about)


def item_ids(text: str, catalogue: "Sequence[ItemId]") -> "list[ItemId]":
    """The items that a text names, as the catalogue writes them, integers too.

    A text that starts with `[` is a JSON list, for names with commas in them.
    """
    if text.lstrip().startswith("["):
        try:
            named = [str(item) for item in json.loads(text)]
        except json.JSONDecodeError as error:
            raise typer.BadParameter(f"the list of items is not JSON: {error}") from None
    else:
        named = [part.strip() for part in text.split(",") if part.strip()]
    # Where both 7 and "7" are items, the text means the text.
    known = {str(item): item for item in sorted(catalogue, key=lambda item: isinstance(item, str))}
    return [known.get(name, name) for name in named]


def _open(root: Path, name: str | None) -> "Artifact":
    from service.artifact import find_artifacts, open_artifact

    found = {folder.parent.name: folder for folder in find_artifacts(root)}
    if name is not None and name not in found:
        raise typer.BadParameter(f"no model {name!r} in {root}, only {', '.join(found)}")
    return open_artifact(found[name or next(iter(found))])


def _about(artifact: "Artifact", mapped: "MappedHistory") -> str:
    kind = artifact.manifest.architecture
    parts = [
        f"{kind.similarity} similarity, {kind.normalisation}, {kind.pooling} pooling",
        f"{len(mapped.items)} clicks",
    ]
    if mapped.truncated:
        parts.append(f"older and left out: {mapped.truncated}")
    if mapped.unknown:
        parts.append("* unknown item")
    return "; ".join(parts)


def _print_clicks(clicks: Sequence[str], weights: "Weights") -> None:
    """A row a click, oldest first, below the start token."""
    table = Table("", "click")
    for head in range(len(weights)):
        table.add_column(f"head {head + 1}", justify="right")
    highest = weights.max(axis=1)
    for at, click in enumerate(["start token", *clicks]):
        cells = [
            f"[bold]{weight:.3f}[/bold]" if weight == top else f"{weight:.3f}"
            for weight, top in zip(weights[:, at], highest, strict=True)
        ]
        table.add_row(str(at) if at else "", click, *cells, end_section=at == 0)
    Console().print(table)


def _print_candidates(
    candidates: "Sequence[ItemId]",
    scores: "Weights",
    clicks: Sequence[str],
    weights: "Weights",
) -> None:
    """A row a candidate: its score, and the click that speaks for it most, head by head."""
    table = Table("candidate")
    table.add_column("score", justify="right")
    for head in range(weights.shape[1]):
        table.add_column(f"head {head + 1} looks most at")
    for candidate, score, heads in zip(candidates, scores, weights, strict=True):
        most = [f"{clicks[row.argmax()]} {row.max():.3f}" for row in heads] if clicks else []
        table.add_row(str(candidate), f"{score:+.3f}", *most)
    Console().print(table)
