"""Public sets fetched from a real server on this machine."""

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stamina

from model.clicks import download as downloads
from model.clicks.download import download
from model.clicks.public_sets import PUBLIC_SETS, PublicSet
from model.errors import DownloadError

CLICKS = b"1 1\n1 2\n"


@dataclass
class Web:
    """A server, what it serves, and how often it fails first."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)  # status codes; 0 cuts the body short
    requests: int = 0


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.requests += 1
            status = web.failures.pop(0) if web.failures else 200
            body = web.files.get(self.path.lstrip("/"))
            if body is None or status >= 300:
                self.send_error(404 if body is None else status)
                return
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if status else body[: len(body) // 2])

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    with stamina.set_testing(True, attempts=3):
        yield web
    server.shutdown()
    thread.join()
    server.server_close()


def offer(web: Web, monkeypatch: pytest.MonkeyPatch, name: str, body: bytes) -> PublicSet:
    """Serves a body under the official path of a set whose checksum is that of CLICKS."""
    known, digest = PUBLIC_SETS[name], hashlib.sha256(CLICKS).hexdigest()
    packed_digest = hashlib.sha256(body).hexdigest() if known.packed_sha256 else None
    small = replace(known, sha256=known.sha256 and digest, packed_sha256=packed_digest)
    monkeypatch.setitem(PUBLIC_SETS, name, small)
    web.files[small.path] = body
    return small


def packed(name: str, content: bytes) -> bytes:
    """The content in the archive of the set."""
    buffer, member = io.BytesIO(), PUBLIC_SETS[name].member
    if name == "msnbc":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(member, gzip.compress(content))
    elif PUBLIC_SETS[name].packing == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(member, content)
    elif PUBLIC_SETS[name].packing == "tar":
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    else:
        return content
    return buffer.getvalue()


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_a_set_is_fetched_and_unpacked(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    small = offer(web, monkeypatch, name, packed(name, CLICKS))
    path = download(name, tmp_path / "new", web.url)
    assert path == tmp_path / "new" / small.file
    assert path.read_bytes() == CLICKS


def test_a_wrong_checksum_leaves_the_file_that_was_there(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = offer(web, monkeypatch, "msnbc", packed("msnbc", b"others\n"))
    (tmp_path / small.file).write_text("before")
    with pytest.raises(DownloadError) as error:
        download("msnbc", tmp_path, web.url)
    assert str(small.sha256) in str(error.value)
    assert hashlib.sha256(b"others\n").hexdigest() in str(error.value)
    assert (tmp_path / small.file).read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == [small.file]


@pytest.mark.parametrize("failures", [[503], [0], [429, 0]])
def test_passing_trouble_is_tried_again(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failures: list[int]
) -> None:
    offer(web, monkeypatch, "ml-1m", CLICKS)
    web.failures = list(failures)
    assert download("ml-1m", tmp_path, web.url).read_bytes() == CLICKS
    assert web.requests == len(failures) + 1


def test_lasting_trouble_ends_with_the_status_and_no_file(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(web, monkeypatch, "ml-1m", CLICKS)
    web.failures = [503] * 9
    with pytest.raises(DownloadError, match=r"ml-1m\.txt: status 503"):
        download("ml-1m", tmp_path, web.url)
    assert web.requests == 3
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_not_tried_again(web: Web, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="status 404"):
        download("ml-1m", tmp_path, web.url)
    assert web.requests == 1


@pytest.mark.parametrize("name", ["msnbc", "wikispeedia"])
def test_what_is_no_archive_is_refused(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    offer(web, monkeypatch, name, b"<html>moved</html>")
    with pytest.raises(DownloadError, match="not the expected archive"):
        download(name, tmp_path, web.url)


def test_a_file_that_is_there_and_right_is_not_fetched_again(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = offer(web, monkeypatch, "ml-1m", CLICKS)
    (tmp_path / small.file).write_bytes(CLICKS)
    assert download("ml-1m", tmp_path, web.url) == tmp_path / small.file
    assert web.requests == 0


def test_a_changed_archive_is_refused(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = offer(web, monkeypatch, "ml-20m-ratings", packed("ml-20m-ratings", CLICKS))
    web.files[small.path] = packed("ml-20m-ratings", b"others\n")
    with pytest.raises(DownloadError, match=r"ml-20m\.zip has SHA-256"):
        download("ml-20m-ratings", tmp_path, web.url)
    assert not list(tmp_path.iterdir())


def test_a_set_without_a_published_checksum_is_fetched_once(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(web, monkeypatch, "amazon-beauty", CLICKS)
    first, second = (download("amazon-beauty", tmp_path, web.url) for _ in range(2))
    assert (first, web.requests) == (second, 1)
    line = f"{hashlib.sha256(CLICKS).hexdigest()}  {first.name}\n"
    assert (tmp_path / f"{first.name}.sha256").read_text() == line


def test_progress_ends_with_all_bytes(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(web, monkeypatch, "ml-1m", CLICKS)
    seen: list[tuple[int, int | None]] = []
    download("ml-1m", tmp_path, web.url, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(CLICKS), len(CLICKS))


def test_an_unknown_set_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="known are msnbc, wikispeedia, ml-1m"):
        download("netflix", tmp_path)


def test_a_set_with_terms_to_accept_says_where(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"https://msnews\.github\.io"):
        download("mind", tmp_path)


def test_the_checksums_are_those_of_the_real_files() -> None:
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not folder.exists():
        pytest.skip(f"{folder} is not here, only generated data is tested")
    for public_set in filter(lambda known: known.sha256, PUBLIC_SETS.values()):
        assert downloads.sha256_of(folder / public_set.file) == public_set.sha256
