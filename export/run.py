"""From the folder of a training run to an artifact."""

from pathlib import Path

from export.write import Description, write_artifact
from model.run import DATA, EVALUATION, TRAINING, read_facts, read_item_ids, read_run_recipe
from model.train import load_encoder
from service.artifact import Facts, open_artifact


def export_run(run: Path, name: str, version: str, root: Path) -> tuple[Path, float]:
    """Exports the best checkpoint of a run.

    Returns:
        The artifact's folder, and the largest difference between PyTorch and ONNX Runtime.

    Raises:
        RecipeError: the folder holds no run.
        ExportError: the version exists, or the graphs differ.
    """
    recipe = read_run_recipe(run)
    item_ids = read_item_ids(run)
    encoder = load_encoder(recipe.encoder, len(item_ids), run)
    about = Description(
        name=name,
        version=version,
        description=recipe.description,
        licence=recipe.data.licence,
        training=_training(run, name, version),
        metrics=carried_metrics(run),
    )
    folder = write_artifact(encoder, item_ids, about, root)
    parity = open_artifact(folder).manifest.parity["worst_absolute_difference"]
    return folder, float(str(parity))


def carried_metrics(run: Path) -> Facts:
    """What an artifact says of its quality: means; intervals and the rest stay in the run."""
    names = ("protocol", "seen_items_removed", "cases", "scorers")
    facts = read_facts(run, EVALUATION)
    return {name: facts[name] for name in names if name in facts}


def _training(run: Path, name: str, version: str) -> Facts:
    recipe = read_run_recipe(run)
    data = read_facts(run, DATA)
    folder = f"runs/{name}"
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
            f"persona export {folder} --name {name} --version {version} --output artifacts",
        ],
        "recipe": recipe.model_dump(mode="json"),
    }
