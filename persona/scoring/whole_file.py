"""Scores a whole file: every row of the input is scored or rejected, exactly once.

A few batches are encoded at a time while the input is read and the output is written in order,
so memory stays bounded for a file of any size. Both outputs appear at the end, complete, or not
at all.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson

from persona.contract import UnknownItems
from persona.results import Encoded, check_same_version
from persona.scoring.batches import Outcome, batches, encode_batch
from persona.scoring.errors import FileError
from persona.scoring.files import check_suffix, open_reader, open_writer
from persona.scoring.rows import Columns, Reject, Row, Writer
from persona.scoring.scorer import Scorer

Progress = Callable[[int, float], None]


@dataclass(frozen=True)
class ScoreReport:
    """Counts of a scored file; `rows` is always `scored + rejected`."""

    rows: int
    scored: int
    rejected: int
    seconds: float
    model: str
    version: str

    @property
    def rows_per_second(self) -> float:
        """Rows per second of wall time."""
        return self.rows / self.seconds if self.seconds else 0.0


def score_file(
    source: str | Path,
    target: str | Path,
    rejects: str | Path,
    scorer: Scorer,
    *,
    model: str | None = None,
    version: str | None = None,
    unknown_items: UnknownItems = "token",
    columns: Columns = Columns(),  # noqa: B008  # it is frozen
    rows_per_batch: int = 256,
    batches_at_once: int = 4,
    progress: Progress = lambda _rows, _fraction: None,
) -> ScoreReport:
    """Encodes every history in `source` and writes the embeddings to `target`.

    The suffixes `.parquet`, `.csv` and `.jsonl` choose the formats. `target` gets the columns
    `row` (of the input, counted from 0), `id`, `embedding`, `used`, `truncated`, `unknown`;
    `rejects` is JSONL with `row`, `line`, `reason` and `raw`.

    Args:
        source: a table with a row for each user and a column of item ids, oldest to newest.
        target: written under another name first, and renamed at the end.
        rejects: likewise; empty if no row is rejected.
        scorer: a `Client` or an `Engine`.
        model: name of the model; None for the default.
        version: version of the model; None for the newest.
        unknown_items: as in `Scorer.encode`; `error` rejects rows with unknown items.
        columns: names of the columns of `source`.
        rows_per_batch: upper limit; batches of long histories have fewer rows.
        batches_at_once: how many batches are encoded at a time.
        progress: called with the number of rows done and the fraction of `source` read, 0 to 1.

    Raises:
        FileError: a file cannot be read, written or understood.
        ModelChanged: another version of the model took over before the end.
        PersonaError: any other failure of the scorer that is not in one row.
    """
    source, target, rejects = Path(source), Path(target), Path(rejects)
    _check_paths(source, target, rejects)
    started = time.monotonic()
    encode = partial(_encode, scorer, model, version, unknown_items)
    # An empty history shows the width, and that the model is there, before the work begins.
    first = encode([Row(0, None, None, [])])
    tally = _Tally(progress)
    with (
        open_reader(source, columns) as reader,
        _all_or_nothing(target, rejects) as (target_part, rejects_part),
        open_writer(target_part, target.suffix, reader.id_type, first.embeddings.shape[1]) as out,
        rejects_part.open("wb") as out_rejects,
    ):
        work = partial(encode_batch, encode)
        for outcome in _in_order(work, batches(reader, rows_per_batch), batches_at_once):
            _write(outcome, first, out)
            out_rejects.writelines(map(_reject_line, outcome.rejects))
            tally.add(outcome, reader.fraction_read())
    return tally.report(time.monotonic() - started, first)


class _Tally:
    """Counts rows and reports progress."""

    def __init__(self, progress: Progress) -> None:
        self.scored = self.rejected = 0
        self._progress = progress

    def add(self, outcome: Outcome, fraction: float) -> None:
        self.scored += sum(len(part.rows) for part in outcome.scored)
        self.rejected += len(outcome.rejects)
        self._progress(self.scored + self.rejected, fraction)

    def report(self, seconds: float, first: Encoded) -> ScoreReport:
        rows = self.scored + self.rejected
        return ScoreReport(rows, self.scored, self.rejected, seconds, first.model, first.version)


def _check_paths(source: Path, target: Path, rejects: Path) -> None:
    check_suffix(source)
    check_suffix(target)
    if len({path.resolve() for path in (source, target, rejects)}) < 3:
        raise FileError(f"input, output and rejects must differ: {source}, {target}, {rejects}")
    for path in (target, rejects):
        if path.is_dir():
            raise FileError(f"{path} is a folder, not a file")
        if not path.parent.is_dir():
            raise FileError(f"{path}: there is no folder {path.parent}")


@contextmanager
def _all_or_nothing(target: Path, rejects: Path) -> Iterator[tuple[Path, Path]]:
    """Yields names to write to; renames both files at the end if nothing fails."""
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


def _in_order(
    work: Callable[[Sequence[Row | Reject]], Outcome],
    waiting_batches: Iterable[Sequence[Row | Reject]],
    at_once: int,
) -> Iterator[Outcome]:
    """The outcomes in the order of the batches, of which `at_once` are worked on at a time."""
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="score")
    running: deque[Future[Outcome]] = deque()
    try:
        for batch in waiting_batches:
            running.append(pool.submit(work, batch))
            if len(running) > at_once:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _encode(
    scorer: Scorer,
    model: str | None,
    version: str | None,
    unknown_items: UnknownItems,
    rows: list[Row],
) -> Encoded:
    return scorer.encode(
        [row.history for row in rows], model=model, version=version, unknown_items=unknown_items
    )


def _write(outcome: Outcome, first: Encoded, out: Writer) -> None:
    for part in outcome.scored:
        check_same_version(first, part.encoded)
        out.write(part)


def _reject_line(reject: Reject) -> bytes:
    names = {"row": reject.number, "line": reject.line, "reason": reject.reason, "raw": reject.raw}
    return orjson.dumps(names) + b"\n"
