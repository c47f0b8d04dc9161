"""A service whose catalogue has words and integers, and what it answers in its own protocol."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest

from export.write import Description, write_artifact
from persona.client import Client
from persona.contract import Floats, ItemId
from tests.conftest import TINY, random_encoder
from tests.serving import serving

ITEMS: list[ItemId] = [*(f"word{number}" for number in range(10)), *range(100, 110)]


@pytest.fixture(scope="session")
def mixed_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with one artifact, `mixed`, of a random encoder over 20 items."""
    root = tmp_path_factory.mktemp("mixed")
    about = Description("mixed", description="Words and integers.")
    write_artifact(random_encoder(TINY, len(ITEMS)), ITEMS, about, root)
    return root


@pytest.fixture(scope="module")
def service(mixed_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(mixed_artifacts, max_body_bytes=200_000) as client:
        yield client


@pytest.fixture(scope="module")
def address(service: httpx.Client) -> str:
    """Host and port."""
    return f"{service.base_url.host}:{service.base_url.port}"


def encoded(address: str, histories: Sequence[Sequence[ItemId]]) -> Floats:
    """What Persona's own protocol answers."""
    with Client(f"http://{address}") as client:
        return client.encode(histories).embeddings


def assert_close(actual: object, expected: object) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=1e-6)
