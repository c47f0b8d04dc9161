"""Facts about the training clicks, to compare with the clicks that the served model gets."""

from typing import Any

import numpy as np

from model.clicks.histories import Histories

POPULAR = 100  # items at most; a tenth of a small catalogue


def traffic(histories: Histories) -> dict[str, Any]:
    """Mean length, the most popular items, and the shares of clicks on them and on unknown ones."""
    counts = np.bincount(histories.items, minlength=histories.n_items + 1)
    clicks = max(1, int(counts.sum()))
    n_popular = max(1, min(POPULAR, histories.n_items // 10))
    popular = np.argsort(-counts[:-1], kind="stable")[:n_popular]
    return {
        "history_length": clicks / max(1, len(histories)),
        "unknown_share": int(counts[-1]) / clicks,
        "popular_share": int(counts[popular].sum()) / clicks,
        "popular_items": [histories.item_ids[row] for row in popular.tolist()],
    }
