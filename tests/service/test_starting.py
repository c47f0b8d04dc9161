"""Requests that reach a worker while it still loads: another one was ready before it."""

import asyncio
from pathlib import Path

import pytest

from persona.contract import NotReady
from service.lifecycle import Service
from service.settings import Settings


def test_a_request_waits_for_the_artifacts(tiny_artifacts: Path) -> None:
    service = Service(Settings(artifacts=tiny_artifacts))

    async def request_while_loading() -> list[str]:
        loading = asyncio.create_task(service.load())
        await service.loaded(60)
        names = [model.manifest.name for model in service.engine().registry.models]
        await loading
        return names

    assert asyncio.run(request_while_loading()) == ["tiny"]


def test_a_request_waits_no_longer_than_its_deadline(tiny_artifacts: Path) -> None:
    never_loaded = Service(Settings(artifacts=tiny_artifacts))
    asyncio.run(never_loaded.loaded(0.001))
    with pytest.raises(NotReady, match="starting"):
        never_loaded.engine()


def test_a_broken_artifact_lets_the_requests_go_at_once(tmp_path: Path) -> None:
    broken = Service(Settings(artifacts=tmp_path))

    async def request() -> None:
        await broken.load()
        async with asyncio.timeout(10):
            await broken.loaded(60)

    asyncio.run(request())
    with pytest.raises(NotReady, match="broken"):
        broken.engine()
