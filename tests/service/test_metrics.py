"""What is counted reaches Prometheus, a little later and all at once."""

import asyncio
import re

from prometheus_client import CollectorRegistry, Counter, generate_latest

from service.distribution import Distribution, Joined
from service.metrics import FLUSH_S, Tally


def counter() -> Counter:
    return Counter("clicks", "Of a test", registry=CollectorRegistry())


def total(counter: Counter) -> float:
    (metric,) = counter.collect()
    return float(metric.samples[0].value)


def test_counts_are_told_without_being_asked_for() -> None:
    async def main() -> None:
        tally, clicks = Tally(), counter()
        for round_ in (1, 2):
            tally.count(clicks)
            tally.count(clicks, 2)
            assert total(clicks) == 3 * (round_ - 1)
            await asyncio.sleep(2 * FLUSH_S)
            assert total(clicks) == 3 * round_

    asyncio.run(main())


def test_counts_are_told_once_when_they_are_asked_for() -> None:
    async def main() -> None:
        tally, clicks = Tally(), counter()
        tally.count(clicks)
        tally.flush()
        assert total(clicks) == 1
        await asyncio.sleep(2 * FLUSH_S)
        assert total(clicks) == 1

    asyncio.run(main())


def test_a_distribution_is_shown_as_a_histogram() -> None:
    async def main() -> str:
        registry = CollectorRegistry()
        seconds = Distribution("wait_seconds", "Of a test", "model", (0.1, 1), registry)
        tally = Tally()
        for value in (0.05, 0.1, 0.5, 7):
            tally.observe(seconds.labels("news"), value)
        tally.flush()
        shown = CollectorRegistry()
        shown.register(Joined(registry, [seconds]))
        return generate_latest(shown).decode()

    text = asyncio.run(main())
    assert "# TYPE wait_seconds histogram" in text
    buckets = re.findall(r'wait_seconds_bucket{le="(.+)",model="news"} (\S+)', text)
    assert buckets == [("0.1", "2.0"), ("1.0", "3.0"), ("+Inf", "4.0")]
    assert 'wait_seconds_count{model="news"} 4.0' in text
    assert 'wait_seconds_sum{model="news"} 7.65' in text
    assert "wait_seconds_counts" not in text
