"""The page at `/`: its files, and what the browser is told about them. tests/page drives it."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from persona import colours
from service.keys import add_key
from service.playground import PAGE
from tests.serving import serving

SCRIPTS = sorted(path for path in PAGE.glob("*.js"))
VENDOR = PAGE / "vendor"


@pytest.fixture(scope="module")
def client(tiny_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(tiny_artifacts) as running:
        yield running


def test_the_page_is_served_with_a_policy_that_allows_nothing_inline(client: httpx.Client) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_names_no_other_host_and_holds_no_inline_script(client: httpx.Client) -> None:
    page = client.get("/").text
    assert not re.findall(r"https?://", page)
    assert not re.findall(r"\son\w+=|style=|<style|<script(?![^>]* src=)", page)


def test_the_page_loads_each_of_its_scripts_ahead(client: httpx.Client) -> None:
    linked = set(re.findall(r'(?:href|src)="playground/([^"]+)"', client.get("/").text))
    names = {str(path.relative_to(PAGE)) for path in PAGE.rglob("*.js")}
    assert linked == names | {"style.css"}
    for name in linked:
        assert client.get(f"/playground/{name}").status_code == 200


def test_the_scripts_are_small() -> None:
    assert sum(len(path.read_text().splitlines()) for path in SCRIPTS) <= 1200


def test_the_colours_are_those_of_all_pictures() -> None:
    light, _, _ = (PAGE / "style.css").read_text().partition("@media")
    said = dict(re.findall(r"--(\w+): (#\w+);", light))
    found = (said["ink"], said["above"], said["below"], said["later"], said["heat"])
    assert found == (colours.INK, colours.ABOVE, colours.BELOW, colours.FORBIDDEN, colours.HEAT)


def test_vendored_files_are_those_that_were_taken_from_npm(client: httpx.Client) -> None:
    for line in (VENDOR / "SHA256SUMS").read_text().splitlines():
        checksum, name = line.split()
        sent = client.get(f"/playground/vendor/{name}").content
        assert hashlib.sha256(sent).hexdigest() == checksum
        assert (VENDOR / f"LICENSE.{Path(name).stem}").is_file()


def test_an_unchanged_file_is_not_sent_again(client: httpx.Client) -> None:
    first = client.get("/playground/app.js")
    headers = {"if-none-match": first.headers["etag"]}
    again = client.get("/playground/app.js", headers=headers)
    assert (again.status_code, again.content) == (304, b"")


def test_files_are_compressed_for_those_who_can_read_it(client: httpx.Client) -> None:
    plain = client.get("/playground/app.js", headers={"accept-encoding": "identity"})
    packed = client.get("/playground/app.js", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content == (PAGE / "app.js").read_bytes()


@pytest.mark.parametrize("name", ["nothing.js", "../__init__.py", "vendor/README.md", "types.d.ts"])
def test_nothing_else_is_served(client: httpx.Client, name: str) -> None:
    assert client.get(f"/playground/{name.replace('../', '..%2f')}").status_code == 404


def test_it_can_be_turned_off(tiny_artifacts: Path) -> None:
    with serving(tiny_artifacts, playground=False) as client:
        assert client.get("/").status_code == 404
        assert client.get("/playground/app.js").status_code == 404


def test_where_keys_are_on_the_page_needs_none_and_the_api_does(
    tiny_artifacts: Path, tmp_path: Path
) -> None:
    add_key(tmp_path / "keys.json", "shop")
    with serving(tiny_artifacts, keys_file=tmp_path / "keys.json") as client:
        assert client.get("/").status_code == 200
        assert client.get("/playground/app.js").status_code == 200
        assert client.post("/v1/items/search", json={}).status_code == 401
