"""The recipe for clicks that nobody has tuned for: each choice that depends on them, by a rule.

The rules hold what was found on sets of 17 to 4,000 items and 5 to 165 clicks a person; see
docs/decisions/0009-recipes.md for the figures behind them.
"""

import math

import numpy as np

from model.encoder import EncoderConfig
from model.histories import Histories
from model.recipe import DataRecipe, Recipe, TrainingRecipe

STEPS = 10_000  # of a whole run; by then ml-1m has stopped to gain
STEPS_AN_EPOCH = 256  # where the clicks suffice for it
FEW_ITEMS = 1_000
WHOLE_CATALOGUE = 50_000  # items that the loss compares at every position; then it samples
NEGATIVES = 4_096


def default_recipe(histories: Histories, name: str = "default") -> Recipe:
    """A recipe for these clicks, from their lengths, number, repeats and the catalogue's size.

    The architecture is that of `recipes/ml-1m.toml`. By rule:

    - `max_length`: 95 % of histories fit whole, between 20 and 200 clicks.
    - `width`: 64 up to 1,000 items, 128 above; clicks come in scaled by its square root.
    - `dropout`: .3 where an item has 10 clicks, .1 at 300, none above 1,700.
    - `max_batch_tokens` and `epochs`: steps small enough that an epoch has 256 of them, and as
      many epochs as make 10,000 steps, between 6 and 60; the first 200 steps warm up, but no more
      than a tenth of all. At a constant rate a run may stop earlier and lose nothing.
    - `negatives`: the whole catalogue in the loss up to 50,000 items, else 4,096 shared ones.
    - `remove_seen`: where fewer than 1 % of the clicks repeat an item.
    """
    clicks = len(histories.items)
    tokens = 2 ** round(math.log2(max(clicks / STEPS_AN_EPOCH, 1)))
    tokens = int(np.clip(tokens, 1_024, 8_192))
    steps = max(1, math.ceil(clicks / tokens))
    epochs = int(np.clip(STEPS // steps, 6, 60))
    width = 64 if histories.n_items <= FEW_ITEMS else 128
    return Recipe(
        name=name,
        data=DataRecipe(remove_seen=repeats(histories) < 0.01),
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
            patience=10,
            learning_rate=2e-3,
            schedule="constant",
            warmup_steps=min(200, steps * epochs // 10),
            max_batch_tokens=tokens,
            averaging=0.998,
            negatives=0 if histories.n_items <= WHOLE_CATALOGUE else NEGATIVES,
        ),
    )


def repeats(histories: Histories) -> float:
    """Share of clicks on an item that the same user has clicked before."""
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    distinct = len(np.unique(user * (histories.n_items + 1) + histories.items))
    return 1 - distinct / max(len(histories.items), 1)


def _max_length(histories: Histories) -> int:
    longest = float(np.quantile(histories.lengths, 0.95)) if len(histories) else 0.0
    return int(np.clip(math.ceil(longest / 10) * 10, 20, 200))


def _dropout(clicks_an_item: float) -> float:
    """A straight line over the logarithm."""
    share = 0.3 - 0.135 * (math.log10(max(clicks_an_item, 1)) - 1)
    return round(min(max(share, 0.0), 0.3), 2)
