"""Which version answers: shares by the hash of a key, versions by their names."""

from collections import Counter
from pathlib import Path

import pytest

from persona.contract import ModelNotFound, NotReady
from persona.engine import Limits
from persona.engine.model import Model
from persona.engine.registry import Registry, Shares
from tests.versions import add_version


@pytest.fixture(scope="module")
def models(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    """Versions 1, 2 and 10 of `tiny`."""
    root = tmp_path_factory.mktemp("versions")
    (root / "tiny").mkdir()
    folders = [add_version(tiny_artifact, root, "tiny", version) for version in ("1", "2", "10")]
    return [Model(folder, Limits()) for folder in folders]


def drawn(models: list[Model], shares: Shares) -> dict[int, str]:
    """The version of each of 1,000 keys."""
    registry = Registry(models, shares={"tiny": shares})
    return {key: registry.find(routing_key=key).manifest.version for key in range(1000)}


def test_the_highest_number_is_the_newest(models: list[Model]) -> None:
    registry = Registry(models)
    assert registry.find().manifest.version == "10"
    assert registry.find("tiny", "2").manifest.version == "2"
    assert [model.manifest.version for model in registry.loaded] == ["10", "2", "1"]


def test_keys_are_shared_in_proportion(models: list[Model]) -> None:
    counts = Counter(drawn(models, {"1": 0.7, "2": 0.2, "10": 0.1}).values())
    assert counts["10"] == pytest.approx(100, abs=40)
    assert counts["2"] == pytest.approx(200, abs=60)


def test_a_larger_share_takes_no_key_away_from_the_newest(models: list[Model]) -> None:
    few, many = (drawn(models, {"2": 1 - share, "10": share}) for share in (0.1, 0.4))
    assert {key for key in few if few[key] == "10"} < {key for key in many if many[key] == "10"}


def test_a_key_stays_with_its_version(models: list[Model]) -> None:
    shares = {"2": 0.5, "10": 0.5}
    assert drawn(models, shares) == drawn(list(reversed(models)), shares)


def test_without_a_key_the_largest_share_answers_and_of_equals_the_oldest(
    models: list[Model],
) -> None:
    for shares, version in (({"2": 0.9, "10": 0.1}, "2"), ({"2": 0.5, "10": 0.5}, "2")):
        assert Registry(models, shares={"tiny": shares}).find().manifest.version == version


def test_a_key_does_not_change_the_version_that_is_asked_for(models: list[Model]) -> None:
    registry = Registry(models, shares={"tiny": {"2": 0.5, "10": 0.5}})
    assert {registry.find("tiny", "1", key).manifest.version for key in range(9)} == {"1"}


def test_a_broken_default_does_not_make_another_model_answer(models: list[Model]) -> None:
    registry = Registry(models, default="shop", broken={"shop": "weights.bin: missing"})
    with pytest.raises(NotReady, match=r"'shop' cannot answer: weights.bin: missing"):
        registry.find()
    assert registry.find("tiny").manifest.version == "10"
    with pytest.raises(ModelNotFound, match="no model 'else'; loaded: tiny"):
        registry.find("else")
