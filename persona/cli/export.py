"""`persona export`: turns a run into an artifact."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from persona.cli.next_step import print_next


def export(
    run: Annotated[Path, typer.Argument(help="Folder that `persona train` wrote.")],
    name: Annotated[str, typer.Option(help="Name of the model, for requests.")],
    version: Annotated[str, typer.Option(help="Version number; the highest one is served.")] = "1",
    output: Annotated[Path, typer.Option(help="Root folder of the artifacts.")] = Path("artifacts"),
    index: Annotated[
        bool, typer.Option("--index", help="Add an index, for a large catalogue.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Clicks to measure the index with.  [default: the run's]"),
    ] = None,
    item_embeddings: Annotated[
        Path | None, typer.Option(help="Also write the item table to this Parquet file.")
    ] = None,
    titles: Annotated[
        Path | None, typer.Option(help="Names and links of items: CSV with item_id, name, link.")
    ] = None,
    link: Annotated[
        str | None, typer.Option(help="Address of an item's page, with {item_id} in it.")
    ] = None,
    examples: Annotated[Path | None, typer.Option(help="Example histories, as JSON.")] = None,
) -> None:
    """Turn a run into an artifact that the service loads.

    The ONNX graphs are compared with PyTorch over a grid of shapes. If they differ by more than
    the tolerance, the export fails and writes nothing. You get a warning if the run has not been
    evaluated or ranks worse than popularity.

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
