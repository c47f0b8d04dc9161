"""What one worker serves follows from the artifacts folder and the choices."""

import asyncio
import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from persona.artifact.format import EVALUATION
from persona.contract import Query
from persona.engine import Engine, Limits
from service.versions.choices import Choice, Choices
from service.versions.copies import Copies
from service.versions.opening import Opener
from service.versions.reports import Report
from service.versions.rollout import Rollout
from tests.versions import add_version, disagree_with_golden, evaluation, flip, sign

Served = dict[str, dict[str, float]]


@pytest.fixture
def root(tiny_artifact: Path, tmp_path: Path) -> Path:
    """An artifacts folder with versions 1 and 2 of `shop`, and 1 of `news`."""
    for name, version in (("shop", "1"), ("shop", "2"), ("news", "1")):
        (tmp_path / "artifacts" / name).mkdir(parents=True, exist_ok=True)
        add_version(tiny_artifact, tmp_path / "artifacts", name, version)
    return tmp_path / "artifacts"


def rollout(root: Path, max_loss: float = 0.05, max_copy_bytes: int = 2**30) -> Rollout:
    copies = Copies(root.parent / "state", max_copy_bytes)
    opener = Opener(copies, Limits(), lambda *_: None, max_loss)
    return Rollout(root, opener, root.parent / "state")


def follow(worker: Rollout, choices: Choices | None = None, *peers: Report) -> Served:
    """Looks twice, as a folder must be quiet for one look; what is served then."""
    for _ in range(2):
        state = worker.follow(choices or Choices(), peers)
        if state is not None:
            worker.adopt(state)
    return worker.state.shares


def choose(revision: int = 1, **choices: Choice) -> Choices:
    return Choices(revision=revision, models=choices)


def loaded(worker: Rollout, model: str = "shop") -> list[str]:
    return list(worker.state.loaded[model])


def test_the_newest_version_of_each_model_is_served(root: Path) -> None:
    worker = rollout(root)
    assert follow(worker) == {"news": {"1": 1.0}, "shop": {"2": 1.0}}
    assert (loaded(worker), worker.state.default) == (["2"], "news")


def test_a_new_version_takes_over_and_the_old_one_goes(root: Path, tiny_artifact: Path) -> None:
    worker = rollout(root)
    follow(worker)
    add_version(tiny_artifact, root, "shop", "10")
    assert follow(worker)["shop"] == {"10": 1.0}
    assert loaded(worker) == ["10"]


def test_a_folder_that_still_changes_is_left_alone(root: Path, tiny_artifact: Path) -> None:
    worker = rollout(root)
    follow(worker)
    half = root / "shop" / "3"
    half.mkdir()
    for file in sorted(tiny_artifact.iterdir()):
        shutil.copy(file, half)
        assert worker.follow(Choices(), []) is None
    sign(half, name="shop", version="3")
    assert follow(worker)["shop"] == {"3": 1.0}
    assert not worker.state.problems


def no_graph(folder: Path) -> None:
    (folder / "embedding.onnx").write_text("?")
    sign(folder)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


Damage = Callable[[Path], object]
DAMAGES: dict[str, Damage] = {
    "a flipped bit": lambda folder: flip(folder / "weights.bin"),
    "a missing file": lambda folder: (folder / "item_ids.json").unlink(),
    "a file too many": lambda folder: (folder / "stranger").write_text(""),
    "other answers than its golden pairs": disagree_with_golden,
    "a graph that is none": no_graph,
    "an empty folder": empty,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_bad_new_version_is_refused_and_the_old_one_stays(
    root: Path, tiny_artifact: Path, damage: Damage
) -> None:
    worker = rollout(root)
    follow(worker)
    damage(add_version(tiny_artifact, root, "shop", "3"))
    assert follow(worker) == {"news": {"1": 1.0}, "shop": {"2": 1.0}}
    assert list(worker.state.problems) == ["shop/3"]
    assert str(root / "shop" / "3") in worker.state.problems["shop/3"]


def test_at_the_start_a_bad_version_gives_way_to_an_older_one(root: Path) -> None:
    flip(root / "shop" / "2" / "weights.bin")
    worker = rollout(root)
    assert follow(worker) == {"news": {"1": 1.0}, "shop": {"1": 1.0}}
    assert "weights.bin" in worker.state.problems["shop/2"]


def test_a_repaired_version_takes_over(root: Path) -> None:
    flip(root / "shop" / "2" / "weights.bin")
    worker = rollout(root)
    follow(worker)
    flip(root / "shop" / "2" / "weights.bin")
    assert follow(worker)["shop"] == {"2": 1.0}
    assert not worker.state.problems


def test_a_model_without_a_good_version_takes_no_other_down(root: Path) -> None:
    for version in ("1", "2"):
        flip(root / "shop" / version / "weights.bin")
    worker = rollout(root)
    assert follow(worker)["news"] == {"1": 1.0}
    assert set(worker.state.problems) == {"shop/1", "shop/2"}


def test_what_is_damaged_while_it_runs_goes_on_and_is_reported(root: Path) -> None:
    worker = rollout(root)
    follow(worker)
    flip(root / "shop" / "2" / "weights.bin")
    assert follow(worker)["shop"] == {"2": 1.0}
    assert "still answers" in worker.state.problems["shop/2"]


def test_a_new_worker_takes_the_copy_of_its_neighbours(root: Path) -> None:
    neighbour, worker = rollout(root), rollout(root)
    follow(neighbour)
    flip(root / "shop" / "2" / "weights.bin")
    assert follow(worker)["shop"] == {"2": 1.0}


def test_a_file_that_is_cut_short_does_not_hurt_who_maps_it(root: Path) -> None:
    worker = rollout(root)
    follow(worker)
    assert worker.engine is not None
    query = Query({"item_id": [["item 1"]]}, model="shop")
    before = worker.engine.run(query).histories[0].embedding
    for file in (root / "shop" / "2").iterdir():
        file.write_bytes(b"")
    np.testing.assert_array_equal(worker.engine.run(query).histories[0].embedding, before)


def test_without_room_for_a_copy_the_folder_itself_is_mapped(root: Path) -> None:
    worker = rollout(root, max_copy_bytes=0)
    follow(worker)
    assert worker.state.loaded["shop"]["2"].model.artifact.folder == root / "shop" / "2"


def test_the_copy_of_a_version_goes_when_nobody_uses_it(root: Path) -> None:
    worker = rollout(root)
    follow(worker)
    copies = Copies(root.parent / "state", 2**30)
    copies.sweep()
    assert (root.parent / "state" / "copies" / "shop" / "2").is_dir()
    follow(worker, choose(shop=Choice(weights={"1": 1})))
    copies.sweep()
    assert not (root.parent / "state" / "copies" / "shop" / "2").exists()


def test_a_version_that_left_is_freed_at_once(root: Path) -> None:
    worker = rollout(root)
    follow(worker)
    gone = weakref.ref(worker.state.loaded["shop"]["2"].model)
    gc.disable()
    try:
        follow(worker, choose(shop=Choice(unloaded=["2"])))
        assert gone() is None
    finally:
        gc.enable()


def test_a_query_is_answered_by_the_version_that_it_found(root: Path) -> None:
    worker = rollout(root)
    follow(worker)

    async def change_meanwhile() -> list[str]:
        assert worker.engine is not None
        query = Query({"item_id": [["item 1"]]}, model="shop")
        early = worker.engine.submit(query, deadline_s=60)
        follow(worker, choose(shop=Choice(weights={"1": 1})))
        late = worker.engine.submit(query, deadline_s=60)
        return [results.version for results in await asyncio.gather(early, late)]

    assert asyncio.run(change_meanwhile()) == ["2", "1"]


def test_weights_share_the_requests(root: Path) -> None:
    worker = rollout(root)
    shares = follow(worker, choose(shop=Choice(weights={"1": 3, "2": 1})))["shop"]
    assert shares == {"1": 0.75, "2": 0.25}


def test_a_version_is_loaded_beside_the_others_for_who_names_it(root: Path) -> None:
    worker = rollout(root)
    assert follow(worker, choose(shop=Choice(loaded=["1"])))["shop"] == {"2": 1.0}
    assert loaded(worker) == ["2", "1"]


def test_the_last_version_cannot_be_unloaded(root: Path) -> None:
    worker = rollout(root)
    follow(worker)
    assert follow(worker, choose(shop=Choice(unloaded=["1", "2"])))["shop"] == {"2": 1.0}


def test_a_model_that_is_off_is_gone(root: Path) -> None:
    worker = rollout(root)
    follow(worker)
    assert "shop" not in follow(worker, choose(shop=Choice(off=True)))
    assert follow(worker, choose(2))["shop"] == {"2": 1.0}


def test_a_folder_that_vanishes_changes_nothing(root: Path) -> None:
    worker = rollout(root)
    served = follow(worker)
    root.rename(root.with_name("elsewhere"))
    assert follow(worker) == served
    assert "no such folder" in worker.state.problems["artifacts"]
    root.with_name("elsewhere").rename(root)
    follow(worker)
    assert not worker.state.problems


def test_a_deleted_version_gives_way_to_what_is_left(root: Path) -> None:
    worker = rollout(root)
    follow(worker)
    shutil.rmtree(root / "shop" / "2")
    assert follow(worker)["shop"] == {"1": 1.0}


@pytest.fixture
def two_encoders(root: Path, other_tiny_artifact: Path) -> Path:
    """The folder, and version 3 of `shop`, which is another encoder and carries cases."""
    folder = add_version(other_tiny_artifact, root, "shop", "3")
    shutil.move(folder, root.parent / "3")
    return root


def judged(root: Path, clicked: int, max_loss: float = 0.05) -> Rollout:
    """A worker that has met version 3 with a case in which this item was clicked."""
    worker = rollout(root, max_loss)
    follow(worker)
    new = root.parent / "3"
    (new / EVALUATION).write_text(evaluation(clicked).model_dump_json())
    sign(new)
    new.rename(root / "shop" / "3")
    follow(worker)
    return worker


def best_of(root: Path, version: Path) -> int:
    """The item that a version takes for likeliest after the history of the cases."""
    case = evaluation(0).cases[0]
    items = [f"item {number}" for number in range(20)]
    return int(Engine.open(version).score([case.history], items).users[0].scores.argmax())


def test_a_worse_version_is_refused(two_encoders: Path) -> None:
    worker = judged(two_encoders, best_of(two_encoders, two_encoders / "shop" / "2"))
    assert worker.state.shares["shop"] == {"2": 1.0}
    assert "on its own evaluation cases, version 2 has 1.0" in worker.state.problems["shop/3"]


def test_a_better_version_takes_over(two_encoders: Path, other_tiny_artifact: Path) -> None:
    worker = judged(two_encoders, best_of(two_encoders, other_tiny_artifact))
    assert worker.state.shares["shop"] == {"3": 1.0}


def test_the_gate_can_be_opened(two_encoders: Path) -> None:
    worst = best_of(two_encoders, two_encoders / "shop" / "2")
    assert judged(two_encoders, worst, max_loss=1.0).state.shares["shop"] == {"3": 1.0}


def test_a_worse_version_that_an_operator_names_is_taken(two_encoders: Path) -> None:
    worker = judged(two_encoders, best_of(two_encoders, two_encoders / "shop" / "2"))
    assert follow(worker, choose(shop=Choice(weights={"3": 1})))["shop"] == {"3": 1.0}


def test_a_new_worker_refuses_what_its_neighbours_refused(two_encoders: Path) -> None:
    neighbour = judged(two_encoders, best_of(two_encoders, two_encoders / "shop" / "2"))
    worker = rollout(two_encoders)
    assert follow(worker, Choices(), neighbour.report())["shop"] == {"2": 1.0}
