"""`persona export`: a run into an artifact."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from persona.cli.next_step import print_next


def export(
    run: Annotated[Path, typer.Argument(help="Folder that `persona train` made.")],
    name: Annotated[str, typer.Option(help="Name of the model, as requests give it.")],
    version: Annotated[str, typer.Option(help="A number; the highest is served.")] = "1",
    output: Annotated[Path, typer.Option(help="Root folder of the artifacts.")] = Path("artifacts"),
    index: Annotated[
        bool, typer.Option("--index", help="Add an index, for a large catalogue.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Clicks that measure the index.  [default: the run's]"),
    ] = None,
    item_embeddings: Annotated[
        Path | None, typer.Option(help="Also write the item table here, as Parquet.")
    ] = None,
    titles: Annotated[
        Path | None, typer.Option(help="What people call the items: CSV of item_id, name, link.")
    ] = None,
    link: Annotated[
        str | None, typer.Option(help="Address of an item's page, with {item_id} in it.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Named histories to begin with, as JSON.")
    ] = None,
) -> None:
    """Turn a run into an artifact that the service loads.

    The ONNX graphs are compared with PyTorch over a grid of shapes. A difference beyond the
    tolerance stops the export and leaves nothing behind. A run that has not been evaluated, or
    that ranks worse than popularity, is exported with a warning.

    Example: persona export runs/news --name news --version 1 --output artifacts
    """
    from export.run import export_run, quality_warning
    from export.titles import ForPeople

    for_people = ForPeople(titles, link, examples)
    artifact = export_run(run, name, version, output, index=index, data=data, for_people=for_people)
    size = sum(path.stat().st_size for path in artifact.folder.iterdir())
    difference = artifact.manifest.parity.worst_absolute_difference
    Console().print(
        f"{artifact.folder}: {size / 1000:,.0f} kB, PyTorch and ONNX Runtime differ by at most "
        f"{difference:.1e}"
    )
    if (fact := artifact.manifest.index) is not None:
        Console(highlight=False).print(
            f"{fact.file}: finds {fact.recall_100:.1%} of the best 100 items of {fact.users} users"
        )
    if item_embeddings is not None:
        from export.items import write_items

        write_items(artifact, item_embeddings)
        Console(highlight=False).print(f"{item_embeddings}: {artifact.manifest.n_items:,} items")
    if warning := quality_warning(artifact.manifest.metrics):
        Console(stderr=True, highlight=False).print(f"warning: {warning}", style="yellow")
    print_next(Console(), "serve", "--artifacts", output)
