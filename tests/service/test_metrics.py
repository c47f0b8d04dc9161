"""What is counted reaches Prometheus, a little later and all at once."""

import asyncio

from prometheus_client import CollectorRegistry, Counter

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
