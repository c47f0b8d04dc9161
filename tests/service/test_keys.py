"""Keys: who gets in, to what, how often; and what stands in the file."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Scope

from service.errors import BrokenKeys, Forbidden, RateLimited
from service.gate import Gate
from service.keys import LOOK_S, Keyring, add_key, read_keys, remove_key
from service.metrics import MULTIPROCESS_FOLDER
from service.shared_counts import SharedCounts
from tests.serving import serving, wait_until

BODY = {"histories": [["item 1"]]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def scope(key: str = "", method: str = "POST", path: str = "/v1/encode", **more: Any) -> Scope:
    headers = [(b"x-api-key", key.encode())] if key else []
    return {"method": method, "path": path, "headers": headers, **more}


@pytest.fixture
def guarded(tiny_artifacts: Path, file: Path) -> Iterator[tuple[httpx.Client, Path]]:
    """A service that wants keys, with none so far but one that nobody has."""
    add_key(file, "nobody")
    with serving(tiny_artifacts, keys_file=file) as client:
        yield client, file


def test_the_file_holds_the_hash_and_not_the_key(file: Path) -> None:
    made = add_key(file, "shop", limits=["100/second"])
    assert made not in file.read_text()
    (key,) = read_keys(file)
    assert (key.name, key.role, key.limits) == ("shop", "user", ("100/second",))
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_name_is_given_once(file: Path) -> None:
    add_key(file, "shop")
    with pytest.raises(BrokenKeys, match="'shop' exists already"):
        add_key(file, "shop")


def test_a_limit_that_cannot_be_read_is_named(file: Path) -> None:
    with pytest.raises(BrokenKeys, match="limits 'often'"):
        add_key(file, "shop", limits=["often"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "JSON"),
        ('{"keys": [{"name": "a", "sha256": "12"}]}', "keys.0.sha256"),
        ('{"keys": [{"name": "a", "key": "secret"}]}', "keys.0"),
    ],
)
def test_a_broken_file_is_refused_without_quoting_it(file: Path, text: str, problem: str) -> None:
    file.write_text(text)
    with pytest.raises(BrokenKeys, match=problem) as caught:
        read_keys(file)
    assert "secret" not in str(caught.value)


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(BrokenKeys, match=r"keys.json: no such file"):
        Keyring(file)


def test_a_changed_file_is_read_without_a_restart(file: Path) -> None:
    old = add_key(file, "old").encode()
    ring = Keyring(file)
    new = add_key(file, "new").encode()
    remove_key(file, "old")
    assert ring.find(new, now=10) is not None
    assert ring.find(old, now=10) is None


def test_a_file_that_breaks_leaves_the_keys_as_they_were(file: Path) -> None:
    key = add_key(file, "shop").encode()
    ring = Keyring(file)
    file.write_text("{")
    assert ring.find(key, now=10) is not None
    assert ring.find(key, now=10 + 2 * LOOK_S) is not None


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_probes_and_scrapers_need_no_key(guarded: tuple[httpx.Client, Path], path: str) -> None:
    client, _ = guarded
    assert client.get(path).status_code == 200


def test_a_request_without_a_key_is_refused(guarded: tuple[httpx.Client, Path]) -> None:
    client, _ = guarded
    for answer in (client.post("/v1/encode", json=BODY), client.get("/v1/models")):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "unauthorized"
    wrong = client.post("/v1/encode", json=BODY, headers=bearer("wrong"))
    assert (wrong.status_code, "wrong" in wrong.text) == (401, False)


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_a_key_lets_in_as_soon_as_it_is_there(
    guarded: tuple[httpx.Client, Path], header: str
) -> None:
    client, file = guarded
    key = add_key(file, "shop")
    headers = bearer(key) if header == "authorization" else {header: key}
    wait_until(lambda: client.post("/v1/encode", json=BODY, headers=headers).status_code == 200)


@pytest.mark.parametrize(
    ("method", "path", "admin"),
    [
        ("POST", "/v1/models/news/load", True),
        ("POST", "/v2/repository/models/news/unload", True),
        ("POST", "/v2/repository/index", False),
        ("GET", "/v1/models", False),
        ("POST", "/v1/encode", False),
    ],
)
def test_what_changes_the_models_needs_an_admin_key(
    file: Path, method: str, path: str, admin: bool
) -> None:
    user, root = add_key(file, "shop"), add_key(file, "root", "admin")
    gate = Gate(file)
    assert gate.admit(scope(root, method, path))
    if admin:
        with pytest.raises(Forbidden, match="'shop' is not an admin key"):
            gate.admit(scope(user, method, path))
    else:
        assert gate.admit(scope(user, method, path))


def test_a_prefix_of_a_proxy_hides_no_admin_path(file: Path) -> None:
    user = add_key(file, "shop")
    with pytest.raises(Forbidden):
        Gate(file).admit(scope(user, path="/ai/v1/models/news/load", root_path="/ai"))


@pytest.mark.parametrize(
    ("host", "allowed"), [("127.0.0.1", True), ("::1", True), ("10.0.0.7", False)]
)
def test_without_keys_only_this_machine_changes_models(host: str, allowed: bool) -> None:
    request = scope(path="/v1/models/news/load", client=(host, 5000))
    gate = Gate(None, open_to_operators=True)
    assert gate.admit(scope(client=(host, 5000))) is None
    if allowed:
        gate.admit(request)
    else:
        with pytest.raises(Forbidden, match="only this machine"):
            gate.admit(request)


def test_a_limit_refuses_and_says_until_when(file: Path) -> None:
    key = add_key(file, "shop", limits=["2/day", "1000/second"])
    gate = Gate(file)
    gate.admit(scope(key))
    gate.admit(scope(key))
    with pytest.raises(RateLimited, match="'shop' is 2 per 1 day") as caught:
        gate.admit(scope(key))
    assert 0 < (caught.value.retry_after_s or 0) <= 86_400


def test_a_limit_of_histories_counts_those_that_are_answered(
    tiny_artifacts: Path, file: Path
) -> None:
    key = add_key(file, "shop", limits=["5 histories/day"])
    with serving(tiny_artifacts, keys_file=file) as client:

        def status(histories: int, path: str = "/v1/encode") -> int:
            body = {"histories": [["item 1"]] * histories}
            return client.post(path, json=body, headers=bearer(key)).status_code

        statuses = [status(count) for count in (3, 6, 3, 2, 1)]
        text = {"model": "tiny", "input": ["item"]}
        other = client.post("/v1/embeddings", json=text, headers=bearer(key))
        refused = client.post("/v1/encode", json=BODY, headers=bearer(key)).json()["error"]
    assert statuses == [200, 413, 429, 200, 429]
    assert (other.status_code, other.json()["error"]["code"]) == (429, "rate_limited")
    assert (
        "the limit of the key 'shop' is 5 histories per 1 day; try again in" in refused["message"]
    )


def test_a_limit_is_of_one_key(file: Path) -> None:
    first, second = (add_key(file, name, limits=["1/day"]) for name in ("first", "second"))
    gate = Gate(file)
    gate.admit(scope(first))
    gate.admit(scope(second))


def test_a_limited_request_gets_429_and_retry_after(tiny_artifacts: Path, file: Path) -> None:
    key = add_key(file, "shop", limits=["1/day"])
    with serving(tiny_artifacts, keys_file=file) as client:
        assert client.post("/v1/encode", json=BODY, headers=bearer(key)).status_code == 200
        refused = client.post("/v1/encode", json=BODY, headers=bearer(key))
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 86_400


def test_a_window_that_has_ended_counts_anew() -> None:
    now = [1000.0]
    counts = SharedCounts(None, lambda: now[0])
    assert [counts.add("a", 10), counts.add("a", 10)] == [1, 2]
    now[0] = 1012.0
    assert (counts.add("a", 10), counts.seconds_left(10)) == (1, 8)


def test_workers_add_up_what_they_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    here, there = (SharedCounts(tmp_path, lambda: now[0]) for _ in range(2))
    here.add("a", 100)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    now[0] += 1
    assert there.add("a", 100) == 2
    assert json.loads((tmp_path / "requests-1.json").read_text()) == [["a", 10, 1]]


def test_the_gate_counts_where_workers_share(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = add_key(file, "shop", limits=["1/day"])
    monkeypatch.setenv(MULTIPROCESS_FOLDER, str(tmp_path))
    Gate(file).admit(scope(key))
    window = int(time.time() // 86_400)
    (told,) = tmp_path.glob("requests-*.json")
    assert json.loads(told.read_text()) == [["LIMITER/shop/1/1/day", window, 1]]
