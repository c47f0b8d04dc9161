"""Numbers too small to be normal: zero in the threads that compute, themselves elsewhere."""

import asyncio
import platform
import threading
from pathlib import Path

import numpy as np
import pytest

from service.app import create_app
from service.settings import Settings
from service.subnormals import flushed_subnormals

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc",
    reason="other processors take no longer for them",
)


def subnormal() -> float:
    """1e-39, if the processor knows such a number."""
    return float((np.full(1, 1e-20, np.float32) * np.float32(1e-19)).item())


def test_they_are_zero_inside_and_themselves_afterwards() -> None:
    with flushed_subnormals():
        assert subnormal() == 0
    assert subnormal() > 0


def test_a_thread_started_inside_takes_them_for_zero_too() -> None:
    found = []
    with flushed_subnormals():
        thread = threading.Thread(target=lambda: found.append(subnormal()))
        thread.start()
        thread.join()
    assert found == [0]


def test_the_running_service_takes_them_for_zero_and_its_end_brings_them_back(
    tiny_artifacts: Path,
) -> None:
    async def live() -> float:
        app = create_app(Settings(artifacts=tiny_artifacts))
        async with app.router.lifespan_context(app):
            return subnormal()

    assert asyncio.run(live()) == 0
    assert subnormal() > 0
