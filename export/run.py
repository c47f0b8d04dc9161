"""From the folder of a training run to an artifact."""

from pathlib import Path

from export.int8 import Int8
from export.write import Description, write_artifact
from model.recipe import Recipe
from model.run import (
    DATA,
    EVALUATION,
    TRAINING,
    load_data,
    read_facts,
    read_item_ids,
    read_run_recipe,
    split,
)
from model.train import load_encoder
from service.artifact import Facts, open_artifact


def export_run(
    run: Path, name: str, version: str, root: Path, *, int8: bool = False, data: Path | None = None
) -> tuple[Path, float]:
    """Exports the best checkpoint of a run.

    Args:
        run: its folder.
        name: of the artifact.
        version: of the artifact.
        root: folder of all artifacts.
        int8: products in 8 bits: calibrated on the training clicks, checked on the validation's.
        data: the click file for that, in place of the recipe's.

    Returns:
        The artifact's folder, and the largest difference between PyTorch and ONNX Runtime.

    Raises:
        RecipeError: the folder holds no run.
        ExportError: the version exists, the graphs differ, or 8 bits leave too little.
    """
    recipe = read_run_recipe(run)
    clicks = _clicks(recipe, data) if int8 else None
    item_ids = read_item_ids(run)
    encoder = load_encoder(recipe.encoder, len(item_ids), run)
    about = Description(
        name=name,
        version=version,
        description=recipe.description,
        licence=recipe.data.licence,
        training=_training(run, name, version, int8=int8),
        metrics=carried_metrics(run),
    )
    folder = write_artifact(encoder, item_ids, about, root, clicks)
    parity = open_artifact(folder).manifest.parity["worst_absolute_difference"]
    return folder, float(str(parity))


def _clicks(recipe: Recipe, data: Path | None) -> Int8:
    parts = split(load_data(recipe, data)[0], recipe.data)
    return Int8(parts.train, parts.validation, recipe.data.remove_seen)


def carried_metrics(run: Path) -> Facts:
    """What an artifact says of its quality: means; intervals and the rest stay in the run."""
    names = ("protocol", "seen_items_removed", "cases", "scorers")
    facts = read_facts(run, EVALUATION)
    return {name: facts[name] for name in names if name in facts}


def _training(run: Path, name: str, version: str, *, int8: bool) -> Facts:
    recipe = read_run_recipe(run)
    data = read_facts(run, DATA)
    folder = f"runs/{name}"
    rounded = f" --int8 --data {data['file']}" if int8 else ""
    return {
        "data": recipe.data.name,
        "credit": recipe.data.source,
        **data,
        **read_facts(run, TRAINING),
        "commands": [
            (
                f"persona train --recipe recipes/{recipe.name}.toml --data {data['file']} "
                f"--output {folder}"
            ),
            f"persona evaluate {folder} --data {data['file']}",
            f"persona export {folder} --name {name} --version {version} --output artifacts"
            + rounded,
        ],
        "recipe": recipe.model_dump(mode="json"),
    }
