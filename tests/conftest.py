"""Real small things for the tests: a random encoder and the artifact exported from it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export.write import Description, ItemProjection, write_artifact
from model.network.config import EncoderConfig
from model.network.encoder import UserEncoder
from persona.contract import Floats
from persona.features import FeatureColumn, width_of

# pytest runs a process for each core: further threads would only wait for each other.
torch.set_num_threads(1)

TINY = EncoderConfig(width=16, heads=2, blocks=2, max_length=12)
TINY_ITEMS = [f"item {number}" for number in range(20)]
SEEN = {
    "history_length": 4.5,
    "popular_share": 0.4,
    "unknown_share": 0.0,
    "popular_items": ["item 0"],
}


def random_encoder(
    config: EncoderConfig, n_items: int, seed: int = 0, spread: float = 0.2
) -> UserEncoder:
    """An encoder whose every parameter matters: none is left at 0 or 1."""
    torch.manual_seed(seed)
    encoder = UserEncoder(config, n_items).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=spread)
    return encoder


@pytest.fixture(scope="session")
def tiny_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with one artifact, `tiny`, of a random encoder over 20 items."""
    root = tmp_path_factory.mktemp("artifacts")
    about = Description("tiny", description="A random encoder for tests.")
    write_artifact(random_encoder(TINY, len(TINY_ITEMS)), TINY_ITEMS, about, root)
    return root


@pytest.fixture(scope="session")
def tiny_artifact(tiny_artifacts: Path) -> Path:
    """The folder of `tiny`."""
    return tiny_artifacts / "tiny" / "1"


FEATURES = (
    FeatureColumn("colour", "category", ("red", "blue")),
    FeatureColumn("price", "number", mean=10.0, deviation=5.0),
)


@pytest.fixture(scope="session")
def shop_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with one artifact, `shop`, whose item vectors have a projection of features."""
    root = tmp_path_factory.mktemp("artifacts")
    encoder = random_encoder(TINY, len(TINY_ITEMS))
    matrix = np.random.default_rng(0).normal(size=(width_of(FEATURES), TINY.width))
    learned: Floats = encoder.item_embedding.weight.detach().numpy()[:-1] * np.float32(0.5)
    projection = ItemProjection(FEATURES, matrix.astype(np.float32), learned)
    write_artifact(encoder, TINY_ITEMS, Description("shop", features=projection), root)
    return root


@pytest.fixture(scope="session")
def other_tiny_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tiny` with other random weights."""
    root = tmp_path_factory.mktemp("others")
    about = Description("tiny", description="Another random encoder for tests.")
    write_artifact(random_encoder(TINY, len(TINY_ITEMS), seed=1), TINY_ITEMS, about, root)
    return root / "tiny" / "1"


@pytest.fixture(scope="session")
def timed_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with one artifact, `timed`, of a random encoder that reads time."""
    root = tmp_path_factory.mktemp("artifacts")
    encoder = random_encoder(replace(TINY, time="gaps"), len(TINY_ITEMS))
    write_artifact(encoder, TINY_ITEMS, Description("timed"), root)
    return root


@pytest.fixture(scope="session")
def watched_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with one artifact, `watched`, that says what its training clicks were like."""
    root = tmp_path_factory.mktemp("artifacts")
    about = Description("watched", training={"traffic": SEEN})
    write_artifact(random_encoder(TINY, len(TINY_ITEMS)), TINY_ITEMS, about, root)
    return root
