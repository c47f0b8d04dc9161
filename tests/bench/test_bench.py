"""The serving benchmarks count, compare and draw what they say they do."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench import ladder, load, loads
from bench.batch import batches
from bench.ceiling import together
from bench.load import Load, closed_loop, open_loop
from bench.online import ratios
from bench.peers import REFERENCE, Running, Server, persona, running
from tests.conftest import TINY_ITEMS
from tests.serving import serving


def test_lengths_of_the_mixes_are_near_the_published_ones() -> None:
    news, films = (loads.lengths(mix, 20_000) for mix in ("news", "films"))
    assert news.mean() == pytest.approx(7.8, rel=0.1)
    assert films.mean() == pytest.approx(110, rel=0.05)
    assert np.percentile(news, 50) == 3
    assert np.percentile(films, 50) == pytest.approx(97, abs=3)
    assert max(news.max(), films.max()) == loads.MAX_LENGTH


def test_without_the_files_lengths_are_drawn_from_their_quantiles(tmp_path: Path) -> None:
    drawn = loads.lengths("news", 20_000, data=tmp_path)
    assert np.percentile(drawn, 50) == pytest.approx(3, abs=1)
    assert drawn.mean() == pytest.approx(7.8, rel=0.15)


def test_histories_have_the_lengths_asked_for_and_items_of_the_catalogue() -> None:
    rows = loads.of_lengths([3, 0, 500], n_items=7)
    assert list(map(len, rows)) == [3, 0, 500]
    assert set(rows[2]) == set(range(7))


def test_batches_hold_that_many_histories_each() -> None:
    assert [len(batch) for batch in batches("mixed", 3, 10)] == [10, 10, 10]


def test_a_ratio_is_of_medians_and_to_the_best_of_several() -> None:
    of = {
        "Persona": [20.0, 90.0, 10.0],
        "LitServe": [2.0, 1.0, 3.0],
        "BentoML": [4.0, 4.0, 4.0],
    }
    assert ratios(of, "news") == {"online_vs_best_python_peer_news": (5.0, 7.0)}


def test_mosec_has_a_target_for_each_mix() -> None:
    of = {"Persona": [4.0], "mosec": [2.0]}
    assert ratios(of, "news") == {"online_vs_mosec_news": (2.0, 1.5)}
    assert ratios(of, "films") == {"online_vs_mosec_films": (2.0, 2.0)}


def test_two_things_one_after_the_other_are_slower_than_each() -> None:
    assert together(3.0, 6.0) == pytest.approx(2.0)


def test_goodput_counts_what_came_within_the_objective() -> None:
    result = Load(100.0, 0.0, np.array([1.0, 2.0, 30.0, 40.0]))
    assert result.goodput(10) == 50
    assert result.percentile(100) == 40


def test_requests_that_failed_are_not_in_time() -> None:
    assert Load(100.0, 0.5, np.array([1.0, 2.0, 30.0, 40.0])).in_time(10) == 0.25
    assert Load(0.0, 1.0, np.empty(0)).in_time(10) == 0
    assert np.isnan(Load(0.0, 1.0, np.empty(0)).percentile(99))


def test_a_ladder_ends_where_a_server_drowns(
    tiny_artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ladder.RATES, "news", (20, 40, 60))
    in_time = iter([1.0, 0.4])
    monkeypatch.setattr(Load, "in_time", lambda *_: next(in_time))
    with serving(tiny_artifacts) as client:
        started = Running(persona(tiny_artifacts), client.base_url.port or 0, 0)
        steps: ladder.Steps = {}
        ladder.climb(started, "news", 0.5, 0, steps)
    assert {rate: len(loads_) for rate, loads_ in steps.items()} == {20: 1, 40: 1}
    assert len(steps[20][0].latencies_ms) == 10


def test_a_round_that_ended_early_has_no_answers_in_time_at_higher_rates() -> None:
    quick, late = Load(9.0, 0.0, np.array([1.0, 2.0])), Load(9.0, 0.0, np.array([1.0, 99.0]))
    assert ladder.in_time({10: [quick, quick], 20: [late]}) == {10: 1.0, 20: 0.25}


def test_processes_of_a_contender_are_found_in_sessions_of_their_own() -> None:
    sleeper = "import subprocess; subprocess.run(['sleep', '30'], start_new_session=True)"
    with subprocess.Popen([sys.executable, "-c", sleeper], start_new_session=True) as parent:
        started = Running(REFERENCE, 0, parent.pid)
        deadline = time.monotonic() + 20
        while len(started.processes()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        found = started.processes()
        for number in found:
            os.kill(number, signal.SIGKILL)
    assert len(found) == 2


@pytest.fixture
def requests() -> list[bytes]:
    """To the tiny artifact of the tests, whose ids are not the catalogue's: all unknown."""
    return load.requests(persona(Path()), [[[number]] for number in range(len(TINY_ITEMS))])


def test_open_loop_sends_as_many_as_asked_for(tiny_artifacts: Path, requests: list[bytes]) -> None:
    with serving(tiny_artifacts) as client:
        opened = open_loop(client.base_url.port or 0, requests, 100, 0.5, connections=4)
    assert len(opened.latencies_ms) == 50
    assert opened.failed == 0


def test_closed_loop_without_wrk_keeps_every_connection_busy(
    tiny_artifacts: Path, requests: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with serving(tiny_artifacts) as client:
        closed = closed_loop(client.base_url.port or 0, requests, 0.5, connections=4)
    assert len(closed.latencies_ms) > 10
    assert closed.failed == 0


def test_refused_requests_are_no_answers(tiny_artifacts: Path) -> None:
    broken = load.requests(Server("broken", (), "/v1/encode", lambda _: b"{"), [[[1]]])
    with serving(tiny_artifacts) as client:
        opened = open_loop(client.base_url.port or 0, broken, 100, 0.2, connections=2)
    assert opened.failed == 1
    assert opened.per_second == 0


@pytest.mark.parametrize("server", ["persona", "the reference loop"])
def test_a_contender_starts_answers_and_ends(server: str) -> None:
    contender = persona() if server == "persona" else REFERENCE
    with running(contender) as started:
        sent = load.requests(contender, [[history] for history in loads.histories("news", 50)])
        assert closed_loop(started.port, sent, 0.5, connections=4).per_second > 0
        assert started.processes()
    assert not started.processes()
