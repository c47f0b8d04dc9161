"""Scores a whole file through the service: every input row is scored or rejected, exactly once.

A few requests are under way at a time while input is read and output written in order, so
memory stays bounded whatever the size of the file. Both outputs appear at the end, complete,
or not at all.
"""

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson

from client.errors import (
    BodyTooLarge,
    ClientError,
    DeadlineExceeded,
    FileError,
    InvalidRequest,
    ModelChanged,
)
from client.files import check_suffix, open_reader, open_writer
from client.http import Client
from client.results import Encoded
from client.rows import Columns, Reject, Row, ScoredRows, Writer, shown
from client.wire import UnknownItems

CLICKS_PER_REQUEST = 50_000

Encode = Callable[[list[Row]], Encoded]
Progress = Callable[[int, float], None]


@dataclass(frozen=True)
class ScoreReport:
    """What became of a file; `rows` is always `scored + rejected`."""

    rows: int
    scored: int
    rejected: int
    seconds: float
    model: str
    version: str

    @property
    def rows_per_second(self) -> float:
        """Rows handled in a second of wall time."""
        return self.rows / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class _Outcome:
    """What became of one request's worth of rows."""

    scored: list[ScoredRows]
    versions: set[tuple[str, str]]
    rejects: list[Reject]


def score_file(
    source: Path,
    target: Path,
    rejects: Path,
    client: Client,
    *,
    model: str | None = None,
    unknown_items: UnknownItems = "token",
    columns: Columns = Columns(),  # noqa: B008 - frozen
    rows_per_request: int = 256,
    requests_in_flight: int = 4,
    progress: Progress = lambda _rows, _fraction: None,
) -> ScoreReport:
    """Encodes every history in `source` and writes the embeddings to `target`.

    Formats follow the suffixes: `.parquet`, `.csv` or `.jsonl`. `target` gets the columns
    `row` (of the input, counted from 0), `id`, `embedding`, `used`, `truncated`, `unknown`;
    `rejects` is JSONL with `row`, `line`, `reason` and `raw`.

    Args:
        source: a row a user, with a column of lists of item ids, oldest to newest.
        target: written under another name first, and renamed at the end.
        rejects: the same; empty if no row is rejected.
        client: talks to the service; its limits and retries apply.
        model: its name; may be left out where the service has one model.
        unknown_items: as in `Client.encode`; with `error` such rows are rejected.
        columns: what the columns of `source` are called.
        rows_per_request: at most; fewer if the histories are long.
        requests_in_flight: at most, at a time.
        progress: called with the rows done and the fraction of `source` read, 0 to 1.

    Raises:
        FileError: a file cannot be read, written or understood.
        ModelChanged: the service changed the model's version on the way.
        ClientError: any other failure that trying again did not cure.
    """
    _check_paths(source, target, rejects)
    started = time.monotonic()
    encode = partial(_encode, client, model, unknown_items)
    # An empty history tells the width, and that service and model are there, before the work.
    first = encode([Row(0, None, None, [])])
    version = (first.model, first.version)
    tally = _Tally(progress)
    with (
        open_reader(source, columns) as reader,
        _all_or_nothing(target, rejects) as (target_part, rejects_part),
        open_writer(target_part, target.suffix, reader.id_type, first.embeddings.shape[1]) as out,
        rejects_part.open("wb") as out_rejects,
    ):
        batches = _batches(reader, rows_per_request)
        for outcome in _in_order(partial(_outcome, encode), batches, requests_in_flight):
            _check_version(version, outcome.versions)
            _write(outcome, out)
            out_rejects.writelines(_reject_line(reject) for reject in outcome.rejects)
            tally.add(outcome, reader.fraction_read())
    return tally.report(time.monotonic() - started, *version)


class _Tally:
    """Counts, and tells the progress."""

    def __init__(self, progress: Progress) -> None:
        self.scored = self.rejected = 0
        self._progress = progress

    def add(self, outcome: _Outcome, fraction: float) -> None:
        self.scored += sum(len(part.rows) for part in outcome.scored)
        self.rejected += len(outcome.rejects)
        self._progress(self.scored + self.rejected, fraction)

    def report(self, seconds: float, model: str, version: str) -> ScoreReport:
        rows = self.scored + self.rejected
        return ScoreReport(rows, self.scored, self.rejected, seconds, model, version)


def _check_paths(source: Path, target: Path, rejects: Path) -> None:
    check_suffix(source)
    check_suffix(target)
    if len({path.resolve() for path in (source, target, rejects)}) < 3:
        raise FileError(f"input, output and rejects must differ: {source}, {target}, {rejects}")
    for path in (target, rejects):
        if not path.parent.is_dir():
            raise FileError(f"{path}: there is no folder {path.parent}")


@contextmanager
def _all_or_nothing(target: Path, rejects: Path) -> Iterator[tuple[Path, Path]]:
    """Names to write to; the files get their own names if nothing goes wrong."""
    parts = [p.with_name(f".{p.name}.{os.getpid()}.part") for p in (target, rejects)]
    try:
        yield parts[0], parts[1]
        parts[1].replace(rejects)
        parts[0].replace(target)
    except OSError as error:
        raise FileError(str(error)) from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _batches(rows: Iterable[Row | Reject], most_rows: int) -> Iterator[list[Row | Reject]]:
    batch, clicks = list[Row | Reject](), 0
    for row in rows:
        batch.append(row)
        clicks += len(row.history) if isinstance(row, Row) else 0
        if len(batch) >= most_rows or clicks >= CLICKS_PER_REQUEST:
            yield batch
            batch, clicks = [], 0
    if batch:
        yield batch


def _in_order(
    work: Callable[[list[Row | Reject]], _Outcome],
    batches: Iterable[list[Row | Reject]],
    at_a_time: int,
) -> Iterator[_Outcome]:
    """The outcomes in the batches' order, `at_a_time` of them in the making."""
    pool = ThreadPoolExecutor(at_a_time, thread_name_prefix="score")
    waiting: deque[Future[_Outcome]] = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(work, batch))
            if len(waiting) > at_a_time:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(encode: Encode, batch: list[Row | Reject]) -> _Outcome:
    rejects = [row for row in batch if isinstance(row, Reject)]
    scored, versions = [], set()
    for part in _encoded_parts(encode, [row for row in batch if isinstance(row, Row)]):
        if isinstance(part, Reject):
            rejects.append(part)
        else:
            rows, encoded = part
            versions.add((encoded.model, encoded.version))
            scored.append(ScoredRows(rows, encoded.embeddings, encoded.users))
    return _Outcome(scored, versions, sorted(rejects, key=lambda reject: reject.number))


def _encoded_parts(encode: Encode, rows: list[Row]) -> Iterator[tuple[list[Row], Encoded] | Reject]:
    """Encodes all rows, cutting out those that the service refuses.

    What follows a refused row is halved: where many rows are bad, that keeps the rows sent
    at n log n instead of n squared.
    """
    if not rows:
        return
    try:
        encoded = encode(rows)
    except InvalidRequest as error:
        bad = _refused_row(error, len(rows))
        yield from _encoded_parts(encode, rows[:bad])
        yield _refused(rows[bad], error, bad)
        yield from _encoded_halves(encode, rows[bad + 1 :])
    except (BodyTooLarge, DeadlineExceeded) as error:
        if len(rows) > 1:
            yield from _encoded_halves(encode, rows)
        elif isinstance(error, BodyTooLarge):
            yield _refused(rows[0], error, 0)
        else:
            raise
    else:
        yield rows, encoded


def _encoded_halves(
    encode: Encode, rows: list[Row]
) -> Iterator[tuple[list[Row], Encoded] | Reject]:
    middle = len(rows) // 2
    yield from _encoded_parts(encode, rows[:middle])
    yield from _encoded_parts(encode, rows[middle:])


def _refused_row(error: InvalidRequest, rows: int) -> int:
    match error.path:
        case ("histories", int(index), *_) if 0 <= index < rows:
            return index
        case _:
            raise error


def _refused(row: Row, error: ClientError, index: int) -> Reject:
    # The service counts within its request, which means nothing to the reader of the rejects.
    reason = re.sub(rf"^history {index}\b", "the history", str(error))
    return Reject(row.number, row.line, reason, shown(row.history))


def _encode(
    client: Client, model: str | None, unknown_items: UnknownItems, rows: list[Row]
) -> Encoded:
    histories = [row.history for row in rows]
    return client.encode(histories, model=model, unknown_items=unknown_items)


def _check_version(expected: tuple[str, str], found: set[tuple[str, str]]) -> None:
    if others := found - {expected}:
        model, version = others.pop()
        raise ModelChanged(
            f"the service went from {expected[0]} version {expected[1]} to {model} version "
            f"{version} on the way; score the file again"
        )


def _write(outcome: _Outcome, out: Writer) -> None:
    for part in outcome.scored:
        out.write(part)


def _reject_line(reject: Reject) -> bytes:
    line = {
        "row": reject.number,
        "line": reject.line,
        "reason": reject.reason,
        "raw": reject.raw,
    }
    return orjson.dumps(line) + b"\n"
