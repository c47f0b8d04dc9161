"""Training that starts from an earlier run's weights, and what that gains."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.clicks.histories import Split
from model.errors import RecipeError
from model.evaluation.metrics import METRICS, Comparison, Metrics, compare, target_ranks
from model.evaluation.scorer import EncoderScorer
from model.training.recipe import Recipe
from model.training.run import read_item_ids, read_run_recipe, write_json
from model.training.train import TrainingResult, load_encoder, new_encoder, train_encoder
from persona.contract import Floats, ItemId

WARM_START = "warm_start.json"
FROM_NOTHING = "from-nothing"  # in the run's folder: the run that it is compared with
HEADLINE = "NDCG@10"


@dataclass(frozen=True)
class Carried:
    """What became of the earlier run's items."""

    run: str
    kept_items: int
    new_items: int
    gone_items: int


@dataclass(frozen=True)
class Gain:
    """A run that started from weights, beside one from nothing that had the same time."""

    seconds: float  # of each
    warm: float  # HEADLINE on the test cases
    from_nothing: float
    comparison: Comparison


def initial_weights(
    run: Path, recipe: Recipe, item_ids: Sequence[ItemId], features: Floats | None = None
) -> tuple[dict[str, Tensor], Carried]:
    """The best weights of a run, its rows of the item table moved to those of another catalogue.

    Rows of new items start as in training from nothing; what is learned of features stays.

    Args:
        run: the earlier run.
        recipe: of the new run.
        item_ids: the new catalogue.
        features: of its items, (n_items, F), as the earlier run reads them; None if it reads none.

    Raises:
        RecipeError: the run has no checkpoint, another architecture or none of the items, or the
            new run would be evaluated on users that the weights have learned from.
    """
    _check(run, recipe)
    old_ids = read_item_ids(run)
    weights = load_encoder(recipe.encoder, len(old_ids), run).state_dict()
    torch.manual_seed(recipe.training.seed)
    new = new_encoder(recipe, len(item_ids), features).state_dict()
    rows = "item_embedding.weight" if features is None else "item_embedding.learned"
    table = new[rows].clone()
    # By their text, because one id that is no number makes strings of all ids of a file.
    old_row = {str(item): row for row, item in enumerate(old_ids)}
    places = [old_row.get(str(item)) for item in item_ids]
    pairs = [(row, place) for row, place in enumerate(places) if place is not None]
    if not pairs:
        raise RecipeError(f"none of the {len(item_ids):,} items is among those of {run}")
    pairs.append((len(item_ids), len(old_ids)))  # of unknown items
    here, there = torch.tensor(pairs).T
    table[here] = weights[rows][there]
    kept = len(pairs) - 1
    carried = Carried(str(run), kept, len(item_ids) - kept, len(old_ids) - kept)
    carried_over = {k: v for k, v in weights.items() if k != "item_embedding.features"}
    return new | carried_over | {rows: table}, carried


def _check(run: Path, recipe: Recipe) -> None:
    earlier = read_run_recipe(run)
    theirs, ours = asdict(earlier.encoder), asdict(recipe.encoder)
    for name, value in theirs.items():
        if ours[name] != value:
            raise RecipeError(f"{run} has {name} {value}, but the recipe has {ours[name]}")
    if (earlier.items is None) != (recipe.items is None):
        has, lacks = (run, "the recipe") if earlier.items else ("the recipe", run)
        raise RecipeError(f"{has} reads features of items, but {lacks} does not")
    if "held_out_users" in (earlier.data.split, recipe.data.split):
        raise RecipeError(
            "split held_out_users draws other users from other clicks, so the weights of "
            f"{run} may know the test users; use leave_one_out"
        )


def measure_gain(
    recipe: Recipe,
    parts: Split,
    run: Path,
    result: TrainingResult,
    *,
    progress: bool,
    features: Floats | None = None,
) -> Gain:
    """Trains from nothing for as long as the run took, and compares the two on the test cases.

    It trains in one process.

    Args:
        recipe: of both.
        parts: the split of both.
        run: folder of the run that started from weights.
        result: of that run.
        progress: whether to show the progress.
        features: of the items, as for `train_encoder`.
    """
    training = recipe.training.model_copy(update={"minutes": result.seconds / 60})
    other = run / FROM_NOTHING
    shorter = recipe.model_copy(update={"training": training})
    train_encoder(shorter, parts, other, progress=progress, features=features)
    ranks = []
    for folder in (run, other):
        encoder = load_encoder(recipe.encoder, parts.train.n_items, folder)
        ranks.append(target_ranks(EncoderScorer(encoder), parts.test, recipe.data.remove_seen))
    warm, nothing = (Metrics.of(rank)[HEADLINE] for rank in ranks)
    return Gain(
        result.total_seconds, warm, nothing, compare(ranks[0], ranks[1], *METRICS[HEADLINE])
    )


def write_start(run: Path, carried: Carried, gain: Gain | None) -> None:
    """Writes where the run started from, and what that gained, into its folder."""
    facts = asdict(carried) | ({} if gain is None else {"gain": asdict(gain)})
    write_json(run / WARM_START, facts)
