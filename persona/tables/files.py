"""The files of a table: local or in an object store, compressed or not."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import fs

from persona.tables.errors import TableError

MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\x04\x22\x4d\x18": "lz4",
}
PARQUET = b"PAR1"
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Files:
    """The files of one table, in reading order."""

    source: str
    system: Any  # the file system that holds them
    paths: tuple[str, ...]
    sizes: tuple[int, ...]  # in bytes, packed
    changed: tuple[float, ...]  # unix seconds

    def head(self, path: str, size: int = 4) -> bytes:
        """The first bytes of the file, still compressed."""
        with named(path), self.system.open_input_stream(path, compression=None) as stream:
            return bytes(stream.read(size))

    @contextmanager
    def open_text(self, path: str) -> Iterator[tuple[Any, Any]]:
        """The decompressed stream, and the compressed one, whose position shows the progress."""
        start = self.head(path)
        packing = next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)
        with named(path), self.system.open_input_file(path) as file:
            yield (pa.CompressedInputStream(file, packing) if packing else file), file

    def checksum(self) -> str:
        """SHA-256 of the file; for several files, SHA-256 of their concatenated checksums."""
        digests = []
        for path in self.paths:
            digest = hashlib.sha256()
            with named(path), self.system.open_input_stream(path, compression=None) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    digest.update(chunk)
            digests.append(digest.hexdigest())
        return digests[0] if len(digests) == 1 else _sha256("".join(digests))

    def open_file(self, path: str) -> Any:
        """The file, opened for random access."""
        with named(path):
            return self.system.open_input_file(path)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def named(path: str) -> Iterator[None]:
    """Adds the file's name to errors."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise TableError(f"{path}: {reason}") from error


def find_files(source: str | Path) -> Files:
    """The files of a path, folder, glob or URL (`s3://bucket/clicks/*.parquet`).

    Hidden files, and files whose names begin with `_`, are skipped, as in Spark.

    Raises:
        TableError: there is no file, or a file is empty.
    """
    source = str(source)
    try:
        system, path = _locate(source)
        found = _matching(system, path)
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{source}: {error}") from error
    if not found:
        folder = Path(source).is_dir()
        raise TableError(f"{source}: {'no files in this folder' if folder else 'no such file'}")
    filled = [info for info in found if info.size]
    if not filled:
        raise TableError(f"{source}: the file is empty")
    filled.sort(key=lambda info: info.path)
    return Files(
        source,
        system,
        tuple(info.path for info in filled),
        tuple(info.size for info in filled),
        tuple((info.mtime_ns or 0) / 1e9 for info in filled),
    )


def _locate(source: str) -> tuple[Any, str]:
    if "://" in source:
        source, mark, settings = source.partition("?")
        base, wild, rest = source.partition("*")
        folder, _, name = base.rpartition("/") if wild else (base, "", "")
        system, path = fs.FileSystem.from_uri(f"{folder}{mark}{settings}")
        return system, f"{path}/{name}{wild}{rest}" if wild else path
    return fs.LocalFileSystem(), source


def _matching(system: Any, path: str) -> list[Any]:
    info = system.get_file_info(path)
    if info.type == fs.FileType.Directory:
        below = system.get_file_info(fs.FileSelector(path, recursive=True))
        return [info for info in below if info.is_file and _is_data(info.path, path)]
    if info.is_file:
        return [info]
    if isinstance(system, fs.LocalFileSystem):
        paths = glob(path, recursive=True)  # noqa: PTH207  # of an absolute pattern, too
        return [info for info in system.get_file_info(paths) if info.is_file]
    folder = path.partition("*")[0].rpartition("/")[0]
    below = system.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    return [info for info in below if info.is_file and fnmatch(info.path, path)]


def _is_data(path: str, folder: str) -> bool:
    below = PurePosixPath(path).relative_to(PurePosixPath(folder)).parts
    return not any(part.startswith((".", "_")) for part in below)
