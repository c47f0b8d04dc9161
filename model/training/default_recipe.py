"""The recipe for untuned clicks: rules derive every choice that depends on the clicks.

The rules come from sets of 17 to 4,000 items and 5 to 165 clicks per user; see
docs/decisions/0009-recipes.md for the figures behind them.
"""

import math

import numpy as np

from model.clicks.histories import Histories
from model.network.encoder import EncoderConfig
from model.training.recipe import BY_RULE, DataRecipe, Recipe, TrainingRecipe

STEPS = 10_000  # of a whole run; ml-1m stops improving earlier
STEPS_PER_EPOCH = 256  # if there are enough clicks
FEW_ITEMS = 1_000
WHOLE_CATALOGUE = 50_000  # largest catalogue that the loss compares whole at every position
NEGATIVES = 4_096  # in the loss of larger catalogues
VALIDATION_CASES = 20_000  # put the standard error of NDCG@10 at about 1 % of it


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
    - `validation_cases`: a sample of 20,000, the same after every epoch.
    - `remove_seen`: true if fewer than 1 % of the clicks repeat an item.
    """
    clicks = len(histories.items)
    tokens = 2 ** round(math.log2(max(clicks / STEPS_PER_EPOCH, 1)))
    tokens = int(np.clip(tokens, 1_024, 8_192))
    steps = max(1, math.ceil(clicks / tokens))
    epochs = int(np.clip(STEPS // steps, 6, 60))
    width = 64 if histories.n_items <= FEW_ITEMS else 128
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
            validation_cases=VALIDATION_CASES,
            patience=10,
            learning_rate=2e-3,
            schedule="constant",
            warmup_steps=min(200, steps * epochs // 10),
            max_batch_tokens=tokens,
            averaging=0.998,
            negatives=0 if histories.n_items <= WHOLE_CATALOGUE else NEGATIVES,
        ),
    )


def repeat_share(histories: Histories) -> float:
    """The share of clicks on an item that the same user has clicked before."""
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    distinct = len(np.unique(user * (histories.n_items + 1) + histories.items))
    return 1 - distinct / max(len(histories.items), 1)


def _max_length(histories: Histories) -> int:
    longest = float(np.quantile(histories.lengths, 0.95)) if len(histories) else 0.0
    return int(np.clip(math.ceil(longest / 10) * 10, 20, 200))


def _dropout(clicks_per_item: float) -> float:
    """A linear function of the logarithm."""
    share = 0.3 - 0.135 * (math.log10(max(clicks_per_item, 1)) - 1)
    return round(min(max(share, 0.0), 0.3), 2)
