"""What is counted of histories, beside what the model saw in training."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from model.training.traffic import traffic
from persona.contract import ITEM_ID, Query
from persona.engine import Engine
from service.metrics import Tally, exposition
from service.traffic import EVERY, Traffic
from tests import small
from tests.conftest import SEEN

LONG = ["item 1"] * 13  # the model reads 12


@pytest.fixture(scope="module")
def engine(watched_artifacts: Path) -> Engine:
    return Engine.open(watched_artifacts)


def told(name: str) -> float:
    """A metric of the model `watched`."""
    families = text_string_to_metric_families(exposition().decode())
    samples = (sample for family in families for sample in family.samples)
    found = (s.value for s in samples if s.name == name and s.labels == {"model": "watched"})
    return next(found, 0.0)


def counted(engine: Engine, name: str, *histories: list[str], times: int = 1) -> float:
    """By how much a metric grows with a query."""
    before = told(name)

    async def main() -> None:
        tally = Tally()
        watched = Traffic(tally)
        query = Query({ITEM_ID: histories})
        for _ in range(times):
            watched.count(engine, query, engine.run(query))
        tally.flush()

    asyncio.run(main())
    return told(name) - before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("persona_history_length_count", 4),
        ("persona_history_length_sum", 2 + 1 + 12),
        ("persona_unknown_clicks_total", 2),
        ("persona_truncated_histories_total", 1),
        ("persona_cold_histories_total", 2),
    ],
)
def test_histories_are_counted(engine: Engine, name: str, expected: float) -> None:
    assert counted(engine, name, ["item 1", "new"], [], ["new"], LONG) == expected


def test_popular_items_are_looked_up_in_some_queries(engine: Engine) -> None:
    histories = ["item 0", "item 1", "item 0"]
    name = "persona_sampled_popular_clicks_total"
    assert counted(engine, name, histories, times=EVERY - 1) == 0
    assert counted(engine, name, histories, times=EVERY) == 2
    assert counted(engine, "persona_sampled_clicks_total", histories, times=EVERY) == 3


@pytest.mark.parametrize("fact", ["history_length", "popular_share", "unknown_share"])
def test_what_training_saw_stands_beside_it(engine: Engine, fact: str) -> None:
    counted(engine, "persona_cold_histories_total", [])
    assert told(f"persona_training_{fact}") == SEEN[fact]


def test_a_run_notes_what_its_clicks_are_like() -> None:
    histories = small.of([0, 0, 1], [0, 4, 2, 0, 0], n_items=4)
    assert traffic(histories) == {
        "history_length": 4.0,
        "unknown_share": 1 / 8,
        "popular_share": 5 / 8,
        "popular_items": [0],
    }


def test_a_large_catalogue_has_a_hundred_popular_items() -> None:
    histories = small.of(list(range(2000)), [7], n_items=2000)
    facts = traffic(histories)
    assert (len(facts["popular_items"]), facts["popular_items"][0]) == (100, 7)
    assert np.isclose(facts["popular_share"], 101 / 2001)
