"""What is counted reaches Prometheus, a little later and all at once."""

import asyncio

from prometheus_client import CollectorRegistry, Counter, Histogram

from service.metrics import FLUSH_S, Durations, Tally


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


def test_durations_told_at_once_are_counted_as_one_by_one() -> None:
    amounts = [0.0, 0.1, 0.1000001, 0.5, 1.0, 7.0, 0.1]  # on a bound, and beyond the last
    together, each = (
        Durations("seconds", "Of a test", buckets=(0.1, 1.0), registry=CollectorRegistry())
        for _ in range(2)
    )
    together.observe_all(amounts)
    for amount in amounts:
        each.observe(amount)
    assert samples(together) == samples(each)


def samples(histogram: Histogram) -> list[tuple[str, str | None, float]]:
    """But for the time when it was made."""
    (metric,) = histogram.collect()
    return [
        (sample.name, sample.labels.get("le"), sample.value)
        for sample in metric.samples
        if not sample.name.endswith("_created")
    ]
