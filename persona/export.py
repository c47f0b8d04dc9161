"""`persona export`: a run into an artifact."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def export(
    run: Annotated[Path, typer.Argument(help="Folder that `persona train` made.")],
    name: Annotated[str, typer.Option(help="Name of the model, as requests give it.")],
    version: Annotated[str, typer.Option(help="A number; the highest is served.")] = "1",
    output: Annotated[Path, typer.Option(help="Root folder of the artifacts.")] = Path("artifacts"),
    int8: Annotated[
        bool, typer.Option("--int8", help="Multiply in 8 bits, if enough is left of the ranking.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="Click file for --int8, in place of the recipe's.")
    ] = None,
) -> None:
    """Turn a run into an artifact that the service loads.

    The ONNX graphs are compared with PyTorch over a grid of shapes; a difference beyond the
    tolerance stops the export and leaves nothing behind. So does --int8 where 8 bits cost the
    embeddings of validation cases more than .001 of cosine or of NDCG@10.

    Example: persona export runs/news --name news --version 1 --output artifacts
    """
    from export.run import export_run
    from service.artifact import open_artifact

    if data and not int8:
        raise typer.BadParameter("--data is read for --int8 alone", param_hint="--data")
    folder, parity = export_run(run, name, version, output, int8=int8, data=data)
    size = sum(path.stat().st_size for path in folder.iterdir())
    Console().print(
        f"{folder}: {size / 1000:,.0f} kB, PyTorch and ONNX Runtime differ by at most {parity:.1e}"
    )
    if int8:
        gates = open_artifact(folder).manifest.int8
        Console().print(
            f"8 bits: cosine {gates['cosine']:.5f}, NDCG@10 {gates['ndcg10']:.4f}, "
            f"in fp32 {gates['ndcg10_in_fp32']:.4f}, {gates['cases']:,} validation cases, "
            f"standard error {gates['ndcg10_standard_error']:.5f}"
        )
    Console().print(f"next: persona serve --artifacts {output}", style="dim")
