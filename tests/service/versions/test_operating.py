"""Versions of a real service: taken over, refused, shared and rolled back, in every worker."""

import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from persona import Client
from persona.client import ChangeRefused
from persona.contract import ModelNotFound
from tests.service.processes import process
from tests.serving import serving, status_of, wait_until
from tests.versions import add_version, flip

pytestmark = pytest.mark.slow  # workers start, load and drain for seconds each

BODY = {"histories": [["item 1"]]}


@pytest.fixture
def root(tiny_artifact: Path, tmp_path: Path) -> Path:
    """An artifacts folder with version 1 of `shop` and of `other`; `shop` is the default."""
    for name in ("shop", "other"):
        (tmp_path / "artifacts" / name).mkdir(parents=True)
        add_version(tiny_artifact, tmp_path / "artifacts", name, "1")
    (tmp_path / "artifacts" / "default").write_text("shop")
    return tmp_path / "artifacts"


@contextmanager
def two_workers(root: Path, **settings: str) -> Iterator[tuple[Any, str]]:
    """`persona serve` with two workers that look every .1 s, once both are ready."""
    variables = {"PERSONA_ADMIN": "1", "PERSONA_WATCH_SECONDS": "0.1"} | settings
    with process("--artifacts", str(root), "--workers", "2", **variables) as (running, url):
        wait_until(lambda: status_of(f"{url}/health/ready") == 200)
        wait_until(lambda: metric(url, "persona_ready_workers") == 2)
        yield running, url


def metric(url: str, name: str) -> float:
    """The sum of a metric's values over what its name and labels begin with."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def workers_with(url: str, version: str, model: str = "shop") -> float:
    return metric(url, f'persona_loaded_versions{{model="{model}",version="{version}"}}')


def versions(url: str, ids: range, **body: object) -> Counter[str]:
    """How often each version answers users of these ids, over connections of their own."""
    bodies = [{"histories": [{"id": number, "items": ["item 1"]}], **body} for number in ids]
    return Counter(httpx.post(f"{url}/v1/encode", json=one).json()["version"] for one in bodies)


@pytest.mark.timeout(600)
def test_both_workers_change_to_a_new_version_and_no_request_fails(
    root: Path, tiny_artifact: Path
) -> None:
    answered: Counter[tuple[int, str]] = Counter()
    over = threading.Event()

    def ask(url: str) -> None:
        while not over.is_set():
            response = httpx.post(f"{url}/v1/encode", json=BODY)
            answered[response.status_code, response.json()["version"]] += 1

    with two_workers(root) as (_, url):
        asking = threading.Thread(target=ask, args=(url,))
        asking.start()
        try:
            add_version(tiny_artifact, root, "shop", "2")
            wait_until(lambda: workers_with(url, "2") == 2 and workers_with(url, "1") == 0)
            assert versions(url, range(10)) == {"2": 10}
        finally:
            over.set()
            asking.join()
    assert set(answered) == {(200, "1"), (200, "2")}


def test_a_broken_version_is_refused_loudly_and_a_restarted_worker_does_not_take_it(
    root: Path, tiny_artifact: Path
) -> None:
    with two_workers(root) as (running, url):
        flip(add_version(tiny_artifact, root, "shop", "2") / "weights.bin")
        broken = 'persona_broken_artifacts{model="shop",version="2"}'
        wait_until(lambda: metric(url, broken) == 1)
        wait_until(lambda: metric(url, "persona_rollouts_total{") >= 6)  # 4 loaded, 2 refused
        ready = httpx.get(f"{url}/health/ready")
        assert ready.status_code == 200
        assert "weights.bin" in ready.json()["problems"]["shop/2"]
        flip(root / "shop" / "1" / "weights.bin")  # on disk, nothing good is left of it
        first = min(workers(running.pid))
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: first not in workers(running.pid) and len(workers(running.pid)) == 2)
        wait_until(lambda: workers_with(url, "1") == 2)
        assert versions(url, range(20)) == {"1": 20}


def workers(parent: int) -> set[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    named = {int(child): Path(f"/proc/{child}/cmdline") for child in children}
    return {child for child, path in named.items() if b"spawn_main" in path.read_bytes()}


def test_sighup_makes_every_worker_look_and_restarts_none(root: Path, tiny_artifact: Path) -> None:
    with two_workers(root, PERSONA_WATCH_SECONDS="0") as (running, url):
        before = workers(running.pid)
        add_version(tiny_artifact, root, "shop", "2")
        running.send_signal(signal.SIGHUP)
        wait_until(lambda: workers_with(url, "2") == 2)
        flip(add_version(tiny_artifact, root, "shop", "3") / "weights.bin")
        running.send_signal(signal.SIGHUP)
        wait_until(lambda: metric(url, 'persona_broken_artifacts{model="shop",version="3"}') == 1)
        assert versions(url, range(10)) == {"2": 10}
        assert workers(running.pid) == before


def test_users_are_shared_between_versions_and_stay_with_theirs(
    root: Path, tiny_artifact: Path
) -> None:
    add_version(tiny_artifact, root, "shop", "2")
    with two_workers(root) as (_, url), Client(url) as client:
        state = client.share("shop", {"1": 0.5, "2": 0.5})
        assert (state.loaded, state.shares) == (["2", "1"], {"1": 0.5, "2": 0.5})
        sides = [min(versions(url, range(user, user + 1))) for user in range(20)]
        assert set(sides) == {"1", "2"}
        for user, side in enumerate(sides):
            assert versions(url, range(user, user + 1)) == {side: 1}
            assert versions(url, range(99, 100), routing_key=user) == {side: 1}
        assert versions(url, range(20), version="1") == {"1": 20}
        assert metric(url, 'persona_histories_total{model="shop",version="2"}') > 0


def test_a_version_is_rolled_back_and_back_again(root: Path, tiny_artifact: Path) -> None:
    add_version(tiny_artifact, root, "shop", "2")
    with two_workers(root) as (_, url), Client(url) as client:
        assert client.unload("shop", "2").shares == {"1": 1.0}
        assert versions(url, range(10)) == {"1": 10}
        assert client.load("shop").shares == {"2": 1.0}
        assert client.load("shop", "1").loaded == ["2", "1"]
        assert versions(url, range(10), version="1") == {"1": 10}


@contextmanager
def one_worker(root: Path, **settings: Any) -> Iterator[httpx.Client]:
    with serving(root, **{"admin": True, "watch_seconds": 0.05} | settings) as client:
        yield client


def change(client: httpx.Client, verb: str, model: str = "shop", **body: object) -> httpx.Response:
    return client.post(f"/v1/models/{model}/{verb}", json=body)


def test_a_change_that_cannot_be_is_taken_back(root: Path, tiny_artifact: Path) -> None:
    flip(add_version(tiny_artifact, root, "shop", "2") / "weights.bin")
    with one_worker(root) as client:
        for verb, body in (("load", {"version": "2"}), ("share", {"weights": {"2": 1}})):
            refused = change(client, verb, **body)
            assert refused.status_code == 409
            assert "weights.bin" in refused.json()["error"]["message"]
        last = change(client, "unload", version="1")
        assert "no other version could take the place" in last.json()["error"]["message"]
        assert change(client, "unload").status_code == 409  # the default model
        assert client.post("/v1/encode", json=BODY).json()["version"] == "1"


def test_a_whole_model_can_be_unloaded_and_loaded(root: Path) -> None:
    with one_worker(root) as client:
        assert change(client, "unload", "other").json()["loaded"] == []
        assert client.post("/v1/encode", json=BODY | {"model": "other"}).status_code == 404
        assert change(client, "load", "other").json()["loaded"] == ["1"]
        assert client.post("/v1/encode", json=BODY | {"model": "other"}).status_code == 200


@pytest.mark.parametrize(
    ("model", "body", "status", "path"),
    [
        ("nothing", {}, 404, ["model"]),
        ("shop", {"version": "7"}, 404, ["version"]),
        ("shop", {"version": 7}, 422, ["version"]),
        ("shop", {"versions": "7"}, 422, ["versions"]),
    ],
)
def test_a_wrong_change_is_named(
    root: Path, model: str, body: dict[str, object], status: int, path: list[str]
) -> None:
    with one_worker(root) as client:
        response = change(client, "load", model, **body)
    assert (response.status_code, response.json()["error"]["path"]) == (status, path)


def test_changes_are_off_unless_they_are_allowed(root: Path) -> None:
    with one_worker(root, admin=False) as client:
        response = change(client, "load")
    assert response.status_code == 403
    assert "PERSONA_ADMIN=1" in response.json()["error"]["message"]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "Origin"])
def test_a_change_from_elsewhere_is_refused(root: Path, header: str) -> None:
    with one_worker(root) as client:
        response = client.post("/v1/models/shop/load", json={}, headers={header: "somebody"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("admin", "error", "message"),
    [(False, ChangeRefused, "is off"), (True, ModelNotFound, "no version '2' of 'other', only 1")],
)
def test_the_client_says_what_was_refused(
    root: Path, admin: bool, error: type[Exception], message: str
) -> None:
    with (
        one_worker(root, admin=admin) as served,
        Client(str(served.base_url)) as client,
        pytest.raises(error, match=message),
    ):
        client.load("other", "2")


def test_a_broken_default_is_not_ready_but_other_models_answer(root: Path) -> None:
    flip(root / "shop" / "1" / "weights.bin")
    with one_worker(root) as client:
        ready, unnamed = client.get("/health/ready"), client.post("/v1/encode", json=BODY)
        named = client.post("/v1/encode", json=BODY | {"model": "other"})
        assert (ready.status_code, unnamed.status_code, named.status_code) == (503, 503, 200)
        assert "weights.bin" in unnamed.json()["error"]["message"]
        flip(root / "shop" / "1" / "weights.bin")
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        assert client.post("/v1/encode", json=BODY).json()["model"] == "shop"


def test_a_broken_model_that_is_not_the_default_leaves_the_service_ready(root: Path) -> None:
    flip(root / "other" / "1" / "weights.bin")
    with one_worker(root) as client:
        assert list(client.get("/health/ready").json()["problems"]) == ["other/1"]
        assert client.post("/v1/encode", json=BODY).status_code == 200
        assert client.post("/v1/encode", json=BODY | {"model": "other"}).status_code == 503


def test_files_cut_short_end_no_worker(root: Path) -> None:
    with two_workers(root) as (running, url):
        before = workers(running.pid)
        for file in (root / "shop" / "1").iterdir():
            os.truncate(file, 0)
        candidates = {"candidates": ["item 2", "item 3"]}
        for _ in range(20):
            assert httpx.post(f"{url}/v1/score", json=BODY | candidates).status_code == 200
        shutil.rmtree(root)
        assert versions(url, range(20)) == {"1": 20}
        assert workers(running.pid) == before


def test_the_choices_outlive_the_service(root: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    add_version(tiny_artifact, root, "shop", "2")
    state, served = tmp_path / "state", Counter[str]()
    for _ in range(2):
        with two_workers(root, PERSONA_STATE_FOLDER=str(state)) as (_, url):
            served = versions(url, range(5))
            with Client(url) as client:
                client.share("shop", {"1": 1})
    assert served == {"1": 5}


def test_a_state_folder_that_cannot_be_written_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = {"PERSONA_STATE_FOLDER": str(tmp_path / "file" / "state")}
    with process("--artifacts", str(root), "--workers", "1", **state) as (running, _):
        _, log = running.communicate(timeout=60)
    assert "persona: PERSONA_STATE_FOLDER: cannot write there: " in log
    assert running.returncode == 1


def test_without_a_folder_of_its_own_nothing_is_left(root: Path, tmp_path: Path) -> None:
    with two_workers(root, TMPDIR=str(tmp_path)) as (running, _):
        assert list(tmp_path.glob("persona-state-*"))
        running.terminate()
        running.wait(timeout=60)
    assert not list(tmp_path.glob("persona-state-*"))
