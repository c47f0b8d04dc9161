"""Downloads public click sets from their official sites and verifies their checksums."""

import gzip
import hashlib
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import httpx
import stamina

from model.clicks.public_sets import PublicSet, find
from model.errors import DownloadError

CHUNK_BYTES = 1 << 20
TRIES = 5
UNCOMPRESSED = {"accept-encoding": "identity"}  # so that content-length is the file's length
Progress = Callable[[int, int | None], None]  # bytes so far, bytes in total if known


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end of the stream."""
        ...


def download(
    name: str, folder: Path, base_url: str | None = None, on_progress: Progress | None = None
) -> Path:
    """Downloads a public set into a folder, unless a file with the right checksum is there.

    If no checksum is published for the click file, that of the first download is written beside
    it, in a file that `sha256sum --check` reads.

    Args:
        name: one of `PUBLIC_SETS`.
        folder: where to save the file; created if missing.
        base_url: a mirror with the same paths, in place of the official host.
        on_progress: called with the bytes so far and the total, if known.

    Raises:
        DownloadError: the name is unknown, the folder cannot be made, the site fails after some
            tries, or the file has another checksum. An existing file is then left unchanged.
    """
    wanted = find(name)
    target = folder / wanted.file
    known = wanted.sha256 or recorded(target)
    if known is not None and target.is_file() and sha256_of(target) == known:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{folder}: {error.strerror}") from error
    url = f"{(base_url or wanted.host).rstrip('/')}/{wanted.path}"
    # In the target's folder: replacing is atomic only within a file system.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        fetched, unpacked = Path(scratch) / "fetched", Path(scratch) / "unpacked"
        fetch(url, fetched, on_progress)
        check(fetched, wanted.packed_sha256, url)
        try:
            unpack(fetched, wanted, unpacked)
        except (OSError, EOFError, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise DownloadError(f"{url}: not the expected archive: {error}") from error
        check(unpacked, wanted.sha256, f"{url}: {wanted.file}")
        if wanted.sha256 is None:
            beside(target).write_text(f"{sha256_of(unpacked)}  {target.name}\n")
        unpacked.replace(target)
    return target


def check(path: Path, wanted: str | None, name: str) -> None:
    """Compares a file with its checksum, if there is one.

    Raises:
        DownloadError: they differ.
    """
    if wanted is not None and (actual := sha256_of(path)) != wanted:
        raise DownloadError(f"{name} has SHA-256 {actual}, expected {wanted}")


def beside(target: Path) -> Path:
    """The file for the checksum of a first download."""
    return target.with_name(f"{target.name}.sha256")


def recorded(target: Path) -> str | None:
    """The checksum of the first download."""
    path = beside(target)
    return path.read_text().split()[0] if path.is_file() else None


def is_temporary(error: Exception) -> bool:
    """Whether a retry may succeed: the connection failed, or the server has a problem."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code == 429
    return isinstance(error, httpx.TransportError)


def fetch(url: str, target: Path, on_progress: Progress | None = None) -> None:
    """Streams a URL into a file; retries temporary failures after a wait."""
    try:
        # No time limit: a long download that breaks off is retried, too.
        for attempt in stamina.retry_context(is_temporary, TRIES, timeout=None):
            with attempt:
                stream_once(url, target, on_progress)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DownloadError(f"{url}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Why a request failed, in a few words."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    return f"{type(error).__name__}: {error}"


def stream_once(url: str, target: Path, on_progress: Progress | None) -> None:
    """Makes one attempt; httpx raises a transport error if the body ends early."""
    with (
        httpx.stream(
            "GET", url, headers=UNCOMPRESSED, follow_redirects=True, timeout=30
        ) as response,
        target.open("wb") as file,
    ):
        response.raise_for_status()
        length = response.headers.get("content-length")
        for chunk in response.iter_bytes(CHUNK_BYTES):
            file.write(chunk)
            if on_progress:
                on_progress(file.tell(), int(length) if length else None)


def unpack(archive: Path, wanted: PublicSet, target: Path) -> None:
    """Extracts the click file of the archive to the target."""
    with open_member(archive, wanted) as source, target.open("wb") as file:
        while chunk := source.read(CHUNK_BYTES):
            file.write(chunk)


@contextmanager
def open_member(archive: Path, wanted: PublicSet) -> Iterator[Readable]:
    """Opens the click file of the archive as a stream."""
    with ExitStack() as stack:
        if wanted.packing == "zip of gzip":
            zipped = stack.enter_context(zipfile.ZipFile(archive))
            member = stack.enter_context(zipped.open(wanted.member))
            yield stack.enter_context(gzip.open(member))
        elif wanted.packing == "zip":
            zipped = stack.enter_context(zipfile.ZipFile(archive))
            yield stack.enter_context(zipped.open(wanted.member))
        elif wanted.packing == "tar":
            tar = stack.enter_context(tarfile.open(archive))
            content = tar.extractfile(wanted.member)
            if content is None:
                raise KeyError(f"{wanted.member} is not a file")
            yield stack.enter_context(content)
        else:
            yield stack.enter_context(archive.open("rb"))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
