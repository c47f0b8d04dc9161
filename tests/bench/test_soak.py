"""The long mixed load: what it sends is answered as documented, and growth is seen."""

from pathlib import Path

from bench.mixed import MixedLoad
from bench.soak import Sample, _growth
from tests.serving import serving, wait_until


def test_nothing_that_the_mixed_load_sends_has_an_unexpected_outcome(tiny_artifacts: Path) -> None:
    with serving(tiny_artifacts) as client:
        load = MixedLoad(client.base_url.port or 0, clients=3)
        try:
            wait_until(lambda: load.outcomes.total() > 300)
        finally:
            load.stop()
        assert client.get("/health/live").status_code == 200
        assert "\npersona_tasks " in client.get("/metrics").text
    assert load.unexpected() == {}
    assert load.outcomes.keys() >= {"200", "404", "went away", "hostile"}


def test_growth_compares_the_end_with_the_time_after_warming_up() -> None:
    sizes = [50, 60, 100, 100, 100, 100, 100, 100, 100, 100, 109, 110]
    samples = [Sample(at, size, size, 1, 0) for at, size in enumerate(sizes)]
    assert _growth(samples, "megabytes") == 109.5 / 100
    assert _growth(samples, "threads") == 1
    assert _growth(samples, "tasks") == 0
