"""From the folder of a training run to an artifact."""

from collections.abc import Sequence
from pathlib import Path

from export.card_picture import METRIC
from export.titles import ForPeople
from export.write import Description, ItemProjection, write_artifact
from model.clicks.histories import Histories
from model.errors import DataError
from model.network.encoder import UserEncoder
from model.network.item_table import ItemTable
from model.training.features import ITEM_FEATURES, read_columns
from model.training.recipe import BY_RULE, Recipe
from model.training.run import (
    DATA,
    EVALUATION,
    TRAFFIC,
    TRAINING,
    load_run_data,
    read_facts,
    read_item_ids,
    read_run_recipe,
)
from model.training.train import load_encoder
from persona.artifact.format import Facts, check_name
from persona.artifact.reading import Artifact, open_artifact
from persona.contract import ItemId
from persona.features import FeatureColumn


def export_run(
    run: Path,
    name: str,
    version: str,
    root: Path,
    *,
    index: bool = False,
    data: Path | None = None,
    for_people: ForPeople = ForPeople(),  # noqa: B008  # frozen
) -> Artifact:
    """Exports the best checkpoint of a run.

    Args:
        run: its folder.
        name: of the artifact.
        version: of the artifact.
        root: folder of all artifacts.
        index: add an index of the item table, measured on users of the run's clicks.
        data: those clicks, by default the file that the run was trained on.
        for_people: where names, links and examples come from.

    Raises:
        RecipeError: the folder holds no run, or a run without a checkpoint.
        ArtifactError: the version exists, or the name or version is not allowed.
        ParityError: ONNX Runtime's answers differ from PyTorch's.
        RecallError: the index misses too many of the best items.
        DataError: the clicks cannot be read, or are not those of the run.
        TitlesError: the names, links or examples cannot be used.
    """
    check_name(name, version)
    recipe = read_run_recipe(run)
    item_ids = read_item_ids(run)
    encoder = load_encoder(recipe.encoder, len(item_ids), run)
    about = Description(
        name=name,
        version=version,
        description=recipe.description,
        licence=recipe.data.licence,
        training=_training(run, recipe, name, version, for_people),
        metrics=carried_metrics(run),
        index_for=_clicks(run, recipe, item_ids, data) if index else None,
        for_people=for_people,
        features=_projection(encoder, read_columns(run)),
    )
    return open_artifact(write_artifact(encoder, item_ids, about, root))


def _projection(encoder: UserEncoder, columns: Sequence[FeatureColumn]) -> ItemProjection | None:
    table = encoder.item_embedding
    if not isinstance(table, ItemTable):
        return None
    matrix, learned = (part.detach().numpy() for part in (table.projection, table.learned[:-1]))
    return ItemProjection(columns, matrix, learned)


def carried_metrics(run: Path) -> Facts:
    """What an artifact says of its quality: means, and of NDCG@10 the interval, low and high.

    All else stays in the run.
    """
    names = ("protocol", "seen_items_removed", "cases", "scorers")
    facts = read_facts(run, EVALUATION)
    carried = {name: facts[name] for name in names if name in facts}
    if isinstance(intervals := facts.get("intervals"), dict):
        carried["intervals"] = {
            scorer: {METRIC: [found[METRIC]["low"], found[METRIC]["high"]]}
            for scorer, found in intervals.items()
        }
    return carried


def quality_warning(metrics: Facts) -> str | None:
    """Why an artifact with these metrics may not be worth serving; None if nothing speaks so."""
    scorers = metrics.get("scorers")
    if not isinstance(scorers, dict):
        return (
            "the run has not been evaluated, so nobody knows whether it is better than popularity; "
            "`persona evaluate` tells"
        )
    encoder, popularity = (scorers[name]["NDCG@10"] for name in ("encoder", "popularity"))
    if encoder >= popularity:
        return None
    return (
        f"NDCG@10 of the encoder is {encoder:.4f}, below the {popularity:.4f} of popularity: the "
        "same list for everybody would be better"
    )


def _clicks(run: Path, recipe: Recipe, item_ids: Sequence[ItemId], data: Path | None) -> Histories:
    histories, fact = load_run_data(run, recipe, data)
    if list(histories.item_ids) != list(item_ids):
        raise DataError(f"{fact.file} has other items than the clicks of {run}")
    return histories


def _training(run: Path, recipe: Recipe, name: str, version: str, for_people: ForPeople) -> Facts:
    data = read_facts(run, DATA)
    folder = f"runs/{name}"
    chosen = "" if recipe.name == BY_RULE else f"--recipe recipes/{recipe.name}.toml "
    seen = read_facts(run, TRAFFIC)
    items = read_facts(run, ITEM_FEATURES)
    of_items = f" --items {items['file']}" if items else ""
    return {
        "data": recipe.data.name,
        "credit": recipe.data.source,
        **data,
        **read_facts(run, TRAINING),
        "commands": [
            f"persona train {chosen}--data {data['file']}{of_items} --output {folder}",
            f"persona evaluate {folder} --data {data['file']}",
            (
                f"persona export {folder} --name {name} --version {version} --output artifacts"
                f"{for_people.options()}"
            ),
        ],
        # The manifest declares the columns beside the graphs that read them.
        "recipe": recipe.model_dump(mode="json", exclude={"encoder": {"columns"}}),
        **({"traffic": seen} if seen else {}),
    }
