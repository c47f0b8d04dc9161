"""Downloads public click sets from their official sites and verifies their checksums."""

import gzip
import hashlib
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import httpx
import stamina

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


@dataclass(frozen=True)
class PublicSet:
    """A click file at its official site.

    The checksum is of the click file itself, so repacking the archive does not change it.
    """

    host: str
    path: str  # of the URL, without a leading slash
    packing: Literal["plain", "tar", "zip of gzip"]
    member: str  # name within the archive
    file: str  # name to save the click file under
    sha256: str
    terms: str


PUBLIC_SETS = {
    "msnbc": PublicSet(
        host="https://archive.ics.uci.edu",
        path="static/public/133/msnbc+com+anonymous+web+data.zip",
        packing="zip of gzip",
        member="msnbc990928.seq.gz",
        file="msnbc990928.seq",
        sha256="982d85eb7aff1744e64d8bfadb21f53fb921b79d53b6305d4df232da59f218fe",
        terms="CC BY 4.0, credit msnbc.com and the UCI Machine Learning Repository",
    ),
    "wikispeedia": PublicSet(
        host="https://snap.stanford.edu",
        path="data/wikispeedia/wikispeedia_paths-and-graph.tar.gz",
        packing="tar",
        member="wikispeedia_paths-and-graph/paths_unfinished.tsv",
        file="wikispeedia-paths-unfinished.tsv",
        sha256="499cf277fc4031034b3d47af775b32b4caf500c7c321c92357ba8688c755ff39",
        terms="cite West and Leskovec (2012) and West, Pineau and Precup (2009)",
    ),
    # The git blob 9ab8e3edb8742f8d8cc4911e3dee25e82a6fcc24, behind the published tables.
    "ml-1m": PublicSet(
        host="https://raw.githubusercontent.com",
        path="kang205/SASRec/master/data/ml-1m.txt",
        packing="plain",
        member="",
        file="ml-1m.txt",
        sha256="b725f3acb3986fe3130bffd1e77a74d182a1f51799567a236dbd60270f95b0a2",
        terms="research only, no redistribution (GroupLens)",
    ),
}
MANUAL = {
    "mind": "accept its terms at https://msnews.github.io and download MINDsmall_train.zip there; "
    "`persona` reads the behaviors.tsv in it",
}


def download(
    name: str, folder: Path, base_url: str | None = None, on_progress: Progress | None = None
) -> Path:
    """Downloads a public set into a folder, unless a file with the right checksum is there.

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
    if target.is_file() and sha256_of(target) == wanted.sha256:
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
        try:
            unpack(fetched, wanted, unpacked)
        except (OSError, EOFError, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise DownloadError(f"{url}: not the expected archive: {error}") from error
        actual = sha256_of(unpacked)
        if actual != wanted.sha256:
            message = f"{url}: {wanted.file} has SHA-256 {actual}, expected {wanted.sha256}"
            raise DownloadError(message)
        unpacked.replace(target)
    return target


def find(name: str) -> PublicSet:
    """The set of that name.

    Raises:
        DownloadError: the name is unknown, or a person must accept the set's terms first.
    """
    if name in MANUAL:
        raise DownloadError(f"{name} cannot be downloaded by a program: {MANUAL[name]}")
    if name not in PUBLIC_SETS:
        known = ", ".join(PUBLIC_SETS)
        raise DownloadError(f"unknown set {name!r}, known are {known}")
    return PUBLIC_SETS[name]


def is_temporary(error: Exception) -> bool:
    """Whether a later try may succeed: the connection failed, or the server is in trouble."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code == 429
    return isinstance(error, httpx.TransportError)


def fetch(url: str, target: Path, on_progress: Progress | None = None) -> None:
    """Streams a URL into a file; retries temporary failures after a wait."""
    try:
        # No time limit: a long download that breaks off is worth another try, too.
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
    """One try; httpx raises a transport error if the body ends early."""
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
