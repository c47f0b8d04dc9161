"""Compares the histories of requests with those that a model was trained on.

If items, lengths or popular items differ from training, a model still answers, but its answers get
worse, and only these metrics show it. One query in `EVERY` is compared with the popular items,
which is enough to measure a share.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter, Gauge

from persona.contract import Query, Results
from persona.engine import Engine
from service.distribution import Series
from service.metrics import HISTORY_LENGTH, Tally

EVERY = 16

UNKNOWN = Counter(
    "persona_unknown_clicks", "Clicks on items that the model does not know", ["model"]
)
TRUNCATED = Counter(
    "persona_truncated_histories", "Histories with more clicks than the model reads", ["model"]
)
COLD = Counter("persona_cold_histories", "Histories without a known item", ["model"])
SAMPLED = Counter("persona_sampled_clicks", "Clicks that were looked up", ["model"])
POPULAR = Counter(
    "persona_sampled_popular_clicks",
    "Looked-up clicks on the most popular items of training",
    ["model"],
)
TRAINING_LENGTH = Gauge(
    "persona_training_history_length",
    "Mean clicks of a history in training",
    ["model"],
    multiprocess_mode="max",
)
TRAINING_POPULAR = Gauge(
    "persona_training_popular_share",
    "Share of the training clicks on its most popular items",
    ["model"],
    multiprocess_mode="max",  # all workers say the same
)
TRAINING_UNKNOWN = Gauge(
    "persona_training_unknown_share",
    "Share of unknown items among the clicks of training",
    ["model"],
    multiprocess_mode="max",  # all workers say the same
)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One model's counters, and its popular items."""

    lengths: Series
    unknown: Counter
    truncated: Counter
    cold: Counter
    sampled: Counter
    popular: Counter
    popular_items: frozenset[Any]


class Traffic:
    """Counts the histories of one worker's requests."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._models: dict[tuple[str, str], _Seen] = {}
        self._queries = 0

    def count(self, engine: Engine, query: Query, results: Results) -> None:
        """Counts the histories of one query that was answered."""
        seen = self._models.get((results.model, results.version))
        if seen is None:
            seen = self._meet(engine, results.model, results.version)
        count = self._tally.count
        for history in results.histories:
            n_items, unknown = len(history.items), history.unknown
            self._tally.observe(seen.lengths, n_items)
            if unknown:
                count(seen.unknown, unknown)
            if history.truncated:
                count(seen.truncated)
            if n_items == (unknown if query.unknown_items == "token" else 0):
                count(seen.cold)
        self._queries += 1
        if seen.popular_items and self._queries % EVERY == 0:
            self._sample(seen, (history.items for history in results.histories))

    def _sample(self, seen: _Seen, histories: Iterable[Any]) -> None:
        popular = seen.popular_items
        for items in histories:
            self._tally.count(seen.sampled, len(items))
            self._tally.count(seen.popular, sum(item in popular for item in items))

    def _meet(self, engine: Engine, model: str, version: str) -> _Seen:
        """Shows facts about a model's training clicks; artifacts of earlier versions have fewer."""
        training = engine.registry.find(model, version).manifest.training
        facts = training.get("traffic")
        traffic: dict[str, Any] = facts if isinstance(facts, dict) else {}
        clicks, users = training.get("clicks"), training.get("users")
        if "history_length" in traffic:
            TRAINING_LENGTH.labels(model).set(traffic["history_length"])
        elif isinstance(clicks, int) and isinstance(users, int) and users:
            TRAINING_LENGTH.labels(model).set(clicks / users)
        for name, gauge in (("popular", TRAINING_POPULAR), ("unknown", TRAINING_UNKNOWN)):
            if (share := traffic.get(f"{name}_share")) is not None:
                gauge.labels(model).set(share)
        seen = _Seen(
            lengths=HISTORY_LENGTH.labels(model),
            unknown=UNKNOWN.labels(model),
            truncated=TRUNCATED.labels(model),
            cold=COLD.labels(model),
            sampled=SAMPLED.labels(model),
            popular=POPULAR.labels(model),
            popular_items=frozenset(traffic.get("popular_items", ())),
        )
        self._models[model, version] = seen
        return seen
