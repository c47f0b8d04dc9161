"""The exact search beside brute force, over tables that are not kind to it."""

from itertools import pairwise

import numpy as np
import pytest

from persona.contract import Floats
from persona.engine import search
from persona.engine.search import Rows, Scan, Search, Table
from persona.engine.steps import Step

N, D, K = 3000, 8, 25
NOTHING: Rows = np.empty(0, np.int64)
rng = np.random.default_rng(0)
PLAIN = rng.standard_normal((N, D)).astype(np.float32)
TABLES: dict[str, Floats] = {
    "no two alike": PLAIN,
    "every item seven times": np.tile(PLAIN, (7, 1))[:N],
    "all alike": np.tile(PLAIN[:1], (N, 1)),
    "zeros": np.zeros((N, D), np.float32),
    "few numbers": rng.integers(-1, 2, (N, D)).astype(np.float32),
    "long and short": PLAIN * np.exp(4 * rng.standard_normal((N, 1))).astype(np.float32),
    "rising": np.sort(PLAIN, axis=0),
}


def brute(scores: Floats, k: int, excluded: Rows) -> list[int]:
    order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
    gone = set(excluded.tolist())
    return [row for row in order if row not in gone][:k]


def compute(step: Step) -> None:
    assert not isinstance(step.group, str)  # no graph
    step.group.compute(step.inputs)


def searched(scans: list[Scan], allowed: Rows | None = None) -> None:
    searches = Search(scans[0].table)
    plan = searches.whole(scans) if allowed is None else searches.listed(scans, allowed)
    for step in plan:
        compute(step)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BLOCK_VALUES", 250 * D)


@pytest.mark.parametrize("cosine", [False, True], ids=["product", "cosine"])
@pytest.mark.parametrize("kind", TABLES)
def test_the_best_are_those_of_brute_force_in_their_order(kind: str, cosine: bool) -> None:
    table = Table(TABLES[kind])
    vectors = rng.standard_normal((5, D)).astype(np.float32)
    scans = [Scan(table, vector, K, NOTHING, cosine) for vector in vectors]
    searched(scans)
    for scan in scans:
        scores = table.scores(scan.vector, np.arange(N), cosine=cosine)
        assert scan.rows.tolist() == brute(scores, K, NOTHING)
        np.testing.assert_array_equal(scan.scores, scores[scan.rows])


@pytest.mark.parametrize("k", [1, 2, 250, N - 1, N])
def test_any_number_may_be_wanted(k: int) -> None:
    table = Table(TABLES["every item seven times"])
    scan = Scan(table, PLAIN[3], k, NOTHING)
    searched([scan])
    assert scan.rows.tolist() == brute(
        table.scores(PLAIN[3], np.arange(N), cosine=False), k, NOTHING
    )


@pytest.mark.parametrize("allowed", [None, 0, 1, 700, N])
def test_what_is_excluded_or_not_allowed_is_not_found(allowed: int | None) -> None:
    table = Table(TABLES["few numbers"])
    excluded = np.unique(rng.integers(0, N, 1500))
    rows = None if allowed is None else np.sort(rng.permutation(N)[:allowed])
    scans = [Scan(table, vector, K, excluded) for vector in PLAIN[:35]]
    searched(scans, rows)
    for scan in scans:
        scores = table.scores(scan.vector, np.arange(N), cosine=False)
        kept = range(N) if rows is None else set(rows.tolist())
        expected = [row for row in brute(scores, N, excluded) if row in kept][:K]
        assert scan.rows.tolist() == expected


def test_a_search_begins_where_another_one_is_and_goes_round() -> None:
    both = Search(Table(PLAIN))
    first, second = (Scan(both.table, vector, K, NOTHING) for vector in PLAIN[:2])
    steps = both.whole([first])
    step = next(steps)
    for _ in range(3):
        step = next(steps)
        compute(step)
    late = list(both.whole([second]))
    starts = [getattr(step.group, "start", None) for step in late]
    assert starts == [750, *range(1000, N, 250), 0, 250, 500, None]
    assert late[0].group == step.group  # so they can share a run


def test_the_best_do_not_depend_on_batch_mates() -> None:
    table = Table(TABLES["every item seven times"])
    alone = [Scan(table, vector, K, NOTHING) for vector in PLAIN[:9]]
    for scan in alone:
        searched([scan])
    together = [Scan(table, vector, K, NOTHING) for vector in PLAIN[:9]]
    searched(together)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_a_step_that_is_computed_again_changes_nothing() -> None:
    scan = Scan(Table(PLAIN), PLAIN[0], K, NOTHING)
    steps = list(Search(scan.table).whole([scan]))
    for step in [one for one in steps for _ in range(2)]:
        compute(step)
    assert all(a > b for a, b in pairwise(scan.scores))
    assert len(set(scan.rows.tolist())) == K
