"""The recipe for untuned clicks: rules derive every choice that depends on the clicks.

The rules come from sets of 17 to 4,000 items and 5 to 165 clicks per user; see
docs/decisions/0009-recipes.md for the figures behind them.
"""

import math

import numpy as np

from model.clicks.histories import Histories
from model.network.config import EncoderConfig
from model.training.recipe import BY_RULE, DataRecipe, Recipe, TrainingRecipe

STEPS = 10_000  # of a whole run; ml-1m stops improving earlier
STEPS_PER_EPOCH = 256  # if there are enough clicks
FEW_ITEMS = 1_000
WHOLE_CATALOGUE = 50_000  # largest catalogue that the loss compares whole at every position
NEGATIVES = 4_096  # in the loss of larger catalogues
VALIDATION_CASES = 20_000  # put the standard error of NDCG@10 at about 1 % of it
FEW_CASES = 1_000  # at least, if there are as many
VALIDATION_SHARE = 0.1  # of the time of training steps, at most
VALIDATION_SLOWNESS = 3.0  # ranking reaches a third of the operations per second of a step
MINUTES = 25.0  # of 600,000 clicks on 5,000 items; two idle cores need half of it
CLICKS, ITEMS = 600_000, 5_000


def default_recipe(
    histories: Histories, data: DataRecipe | None = None, name: str = BY_RULE
) -> Recipe:
    """A recipe for these clicks, from history lengths, clicks, repeats and catalogue size.

    The architecture is that of `recipes/ml-1m.toml`. The rules:

    - `max_length`: 95 % of the histories fit, between 20 and 200 clicks.
    - `width`: 64 up to 1,000 items, 128 above; `embedding_scale` is its square root.
    - `dropout`: .3 at 10 clicks per item, .1 at 300, 0 above 1,700.
    - `max_batch_tokens`: batches small enough for 256 steps per epoch.
    - `epochs`: enough for 10,000 steps, between 6 and 60. The first 200 steps warm up, but at
      most a tenth of all steps. At a constant rate, stopping early costs nothing.
    - `negatives`: the loss compares the whole catalogue up to 50,000 items, else 4,096 of it.
    - `validation_cases`: a sample of at most 20,000, the same after every epoch. Less where ranking
      the catalogue so often would take more than a tenth of the time of the steps.
    - `minutes`: 25 up to 600,000 clicks on 5,000 items, above in proportion to the work.
    - `remove_seen`: true if fewer than 1 % of the clicks repeat an item.
    """
    clicks = len(histories.items)
    tokens = 2 ** round(math.log2(max(clicks / STEPS_PER_EPOCH, 1)))
    tokens = int(np.clip(tokens, 1_024, 8_192))
    steps = max(1, math.ceil(clicks / tokens))
    epochs = int(np.clip(STEPS // steps, 6, 60))
    width = 64 if histories.n_items <= FEW_ITEMS else 128
    negatives = 0 if histories.n_items <= WHOLE_CATALOGUE else NEGATIVES
    work = clicks * _click_operations(width, negatives or histories.n_items)
    return Recipe(
        name=name,
        data=(data or DataRecipe()).model_copy(
            update={"remove_seen": repeat_share(histories) < 0.01}
        ),
        encoder=EncoderConfig(
            positions="rotary",
            width=width,
            embedding_scale=round(math.sqrt(width), 1),
            heads=1,
            feed_forward=2,
            gated=True,
            max_length=_max_length(histories),
            dropout=_dropout(clicks / max(histories.n_items, 1)),
        ),
        training=TrainingRecipe(
            epochs=epochs,
            minutes=round(MINUTES * max(1.0, work / (CLICKS * _click_operations(128, ITEMS)))),
            validation_cases=_validation_cases(histories, width, work),
            patience=10,
            learning_rate=2e-3,
            schedule="constant",
            warmup_steps=min(200, steps * epochs // 10),
            max_batch_tokens=tokens,
            averaging=0.998,
            negatives=negatives,
        ),
    )


def repeat_share(histories: Histories) -> float:
    """The share of clicks on an item that the same user has clicked before."""
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    distinct = len(np.unique(user * (histories.n_items + 1) + histories.items))
    return 1 - distinct / max(len(histories.items), 1)


def _click_operations(width: int, compared: int) -> float:
    """Multiplications and additions that a training step spends on a click.

    A product of matrices takes 2 for each weight forwards and 4 backwards. Two blocks of attention
    and gated feed-forward layers of twice the width have 20 width^2 weights.
    """
    return 6.0 * (20 * width**2 + width * compared)


def _validation_cases(histories: Histories, width: int, work: float) -> int:
    """How many cases can be ranked in VALIDATION_SHARE of the time of an epoch's steps."""
    length = len(histories.items) / max(1, len(histories))
    case = 2.0 * (20 * width**2 * min(length, 200.0) + width * histories.n_items)
    affordable = VALIDATION_SHARE * work / (VALIDATION_SLOWNESS * case)
    return int(np.clip(affordable, FEW_CASES, VALIDATION_CASES))


def _max_length(histories: Histories) -> int:
    longest = float(np.quantile(histories.lengths, 0.95)) if len(histories) else 0.0
    return int(np.clip(math.ceil(longest / 10) * 10, 20, 200))


def _dropout(clicks_per_item: float) -> float:
    """A linear function of the logarithm."""
    share = 0.3 - 0.135 * (math.log10(max(clicks_per_item, 1)) - 1)
    return round(min(max(share, 0.0), 0.3), 2)
