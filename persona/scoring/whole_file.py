"""Scores a whole file: every row of the input is scored or rejected, exactly once.

The input is read, parts of it are scored, and finished parts are written at the same time. A few
parts are in memory, whatever the size of the file. docs/scoring.md tells how a run goes on.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, get_args

from persona.contract import UnknownItems
from persona.scoring.assembly import Target, assemble
from persona.scoring.errors import (
    FileError,
    InternalError,
    RunChanged,
    ScoringError,
    TooManyRejects,
)
from persona.scoring.journal import Journal, journal_in
from persona.scoring.parts import PART_ROWS, Part, parts
from persona.scoring.scorer import Counts, FormatName, ModelFacts, Plan, ScoredPart, Scorer
from persona.tables import TableOptions, open_table
from persona.tables.table import Table

Progress = Callable[[int, float], None]
READER_MEMORY = "150MB"
FORMATS: tuple[FormatName, ...] = get_args(FormatName)


@dataclass(frozen=True)
class MaxRejects:
    """How many rows may be rejected."""

    rows: float = math.inf
    share: float = 1.0  # of the rows so far

    @classmethod
    def of(cls, text: str | None) -> Self:
        """Reads "100" or "1%".

        Raises:
            ScoringError: it is neither.
        """
        if text is None:
            return cls()
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = -1.0
        if not 0 <= number < math.inf:
            raise ScoringError(f"--max-rejects {text}: give a number such as 100, or 1%")
        return cls(share=number / 100) if text.endswith("%") else cls(rows=number)

    def check(self, counts: Counts) -> None:
        """Raises `TooManyRejects` if there are more."""
        if counts.rejected > min(self.rows, self.share * counts.rows):
            raise TooManyRejects(
                f"{counts.rejected:,} of {counts.rows:,} rows are rejected, more than allowed; "
                "the same command with a higher --max-rejects goes on"
            )


@dataclass(frozen=True)
class ScoreReport:
    """What became of a file."""

    counts: Counts
    resumed_rows: int  # that an earlier run had finished
    seconds: float
    model: ModelFacts

    @property
    def rows_per_second(self) -> float:
        """Rows per second of wall time, without those of an earlier run."""
        return (self.counts.rows - self.resumed_rows) / self.seconds if self.seconds else 0.0

    @property
    def padding_ratio(self) -> float | None:
        """Computed tokens over real ones; None where the scorer does not know."""
        counts = self.counts
        return counts.computed_tokens / counts.tokens if counts.computed_tokens else None


def score_file(
    source: str | Path,
    target: str | Path,
    scorer: Scorer,
    *,
    columns: TableOptions = TableOptions(),  # noqa: B008  # it is frozen
    output_format: FormatName | None = None,
    rejects: str | Path | None = None,
    model: str | None = None,
    version: str | None = None,
    unknown_items: UnknownItems = "token",
    float16: bool = False,
    recommend: int | None = None,
    embeddings: bool | None = None,
    exclude_seen: bool = False,
    max_rejects: str | None = None,
    restart: bool = False,
    part_rows: int = PART_ROWS,
    progress: Progress = lambda _rows, _fraction: None,
) -> ScoreReport:
    """Writes the embedding of every history in `source`, or what to show next, to `target`.

    A run that was ended goes on when it is called again, and gives the same bytes. `target` gets
    the columns `row` (of the input, counted from 0), `id`, those of `columns.columns`, `embedding`,
    `used`, `truncated` and `unknown`; `target`.run.json says which model made them.

    Args:
        source: a table of histories or of clicks: a file, a folder, a glob or an address.
        target: a file, or a folder of part files if it ends with `/` or is there.
        scorer: `ServiceScorer`, `ProcessScorer` or `RayScorer`.
        columns: where what stands in `source`, and what is passed through.
        output_format: by default what the name of `target` ends with; Parquet for a folder.
        rejects: JSON lines with what was rejected and why; by default `target`.rejects.jsonl.
        model: name of the model; None for the default.
        version: version of the model; None for the newest.
        unknown_items: for items that the model does not know, `token` encodes a click on an unknown
            item, `drop` leaves the click out, `error` rejects the row.
        float16: write embeddings and scores as float16.
        recommend: how many items to recommend to each user: the columns `items` and `scores`.
        embeddings: whether to write embeddings; None: unless items are recommended.
        exclude_seen: recommend no items of the history.
        max_rejects: a number of rows such as "100", or a share of those so far such as "1%".
        restart: begin anew where a run with another input, model or options was ended.
        part_rows: rows that are written at a time.
        progress: called with the number of rows done and the fraction of `source` read, 0 to 1.

    Raises:
        TableError: the input cannot be read or understood.
        FileError: an output cannot be written.
        RunChanged: an ended run had another input, model or options.
        TooManyRejects: more rows are rejected than allowed; what is done stays.
        PersonaError: any other failure of the scorer that is not in one row.
    """
    started = time.monotonic()
    place = _target(str(target), output_format, rejects)
    if place.format == "npy" and recommend is not None and not embeddings:
        raise ScoringError(".npy holds embeddings; choose another format for recommended items")
    limit = MaxRejects.of(max_rejects)
    with closing(scorer), ExitStack() as opened:
        table = opened.enter_context(open_table(source, columns, memory=READER_MEMORY))
        _check_distinct(table, place)
        plan = Plan(
            place.format,
            table.id_type,
            table.schema,
            model,
            version,
            unknown_items,
            float16,
            recommend is None if embeddings is None else embeddings,
            recommend,
            exclude_seen,
        )
        facts = scorer.start(plan)
        _check_columns(facts, table, source)
        if facts.columns:  # which only the model tells; the table is read anew for them
            opened.close()
            wanted = replace(columns, click_columns=tuple(facts.columns.items()))
            table = opened.enter_context(open_table(source, wanted, memory=READER_MEMORY))
        table.keep_times = facts.reads_time
        options = {**asdict(columns), **_options(plan), "part_rows": part_rows}
        run = {"input": table.states, "model": asdict(facts), "options": options}
        with journal_in(place.work, run, restart=restart) as journal:
            tally = _Tally(journal.counts, limit, progress)
            waiting = _waiting(parts(table, part_rows), journal)
            for part in _scored(scorer, waiting):
                journal.commit(part)
                tally.add(part.counts, table)
            assemble(journal, place, {**run, "counts": asdict(tally.counts)})
            journal.remove()
    return ScoreReport(tally.counts, tally.resumed_rows, time.monotonic() - started, facts)


class _Tally:
    """Counts rows, reports progress, and stops a run that goes wrong."""

    def __init__(
        self, finished: Mapping[int, Counts], limit: MaxRejects, progress: Progress
    ) -> None:
        self.counts = sum(finished.values(), Counts())
        self.resumed_rows = self.counts.rows
        self._limit, self._progress = limit, progress

    def add(self, counts: Counts, table: Table) -> None:
        """Counts a part.

        Raises:
            TooManyRejects: more rows are rejected than allowed.
        """
        self.counts += counts
        rows = self.counts.rows
        self._progress(rows, min(1.0, rows / table.rows) if table.rows else table.fraction_read)
        self._limit.check(self.counts)


def _waiting(all_parts: Iterable[Part], journal: Journal) -> Iterator[Part]:
    """The parts that are not finished."""
    for part in all_parts:
        finished = journal.counts.get(part.number)
        if finished is None:
            yield part
        elif finished.rows != part.size:
            raise RunChanged(
                f"{journal.folder}: part {part.number} was finished with {finished.rows} rows and "
                f"is read with {part.size} now; begin anew with --restart"
            )


def _scored(scorer: Scorer, waiting: Iterable[Part]) -> Iterator[ScoredPart]:
    """Scores parts, as many at a time as keep the scorer busy; in the order of their ends."""
    running = set[Future[ScoredPart | Exception]]()
    for part in waiting:
        running.add(scorer.submit(part))
        if len(running) >= scorer.at_once:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from map(_result, done)
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from map(_result, done)


def _result(future: "Future[ScoredPart | Exception]") -> ScoredPart:
    result = future.exception() or future.result()
    if isinstance(result, ScoredPart):
        return result
    raise InternalError.of(result)


def _options(plan: Plan) -> dict[str, Any]:
    """What is wanted, without what the input and the model say."""
    return {
        name: value
        for name, value in vars(plan).items()
        if name not in {"id_type", "kept", "model", "version"}
    }


def _check_columns(facts: ModelFacts, table: Table, source: str | Path) -> None:
    needed = ["the time"] if facts.reads_time and not table.timed else []
    found = table.columns if table.kind == "clicks" else ()
    needed += [f"the column '{name}'" for name in facts.columns if name not in found]
    if needed:
        message = f"{facts.name} reads {needed[0]} of every click, and {source} has none"
        raise ScoringError(f"{message}: a table with one click a row can have a column of it")


def _target(name: str, output_format: FormatName | None, rejects: str | Path | None) -> Target:
    path = Path(name)
    is_folder = name.endswith("/") or path.is_dir()
    suffixes: dict[str, FormatName] = {f".{one}": one for one in FORMATS}
    chosen = output_format or ("parquet" if is_folder else suffixes.get(path.suffix.lower()))
    if chosen is None:
        known = ", ".join(suffixes)
        raise FileError(f"{path}: the name must end with one of {known}, or a format must be given")
    rejects = Path(rejects or path.with_name(f"{path.name}.rejects.jsonl"))
    target = Target(path, is_folder, chosen, rejects)
    for file in (path, rejects):
        if not file.parent.is_dir():
            raise FileError(f"{file}: there is no folder {file.parent}")
    if rejects.is_dir():
        raise FileError(f"{rejects} is a folder, not a file")
    if is_folder and path.is_dir() and any(path.iterdir()) and not target.work.exists():
        raise FileError(f"{path}: the folder is not empty")
    return target


def _check_distinct(table: Table, target: Target) -> None:
    outputs = {target.path, target.rejects, *target.files().values()}
    both = {path.resolve() for path in outputs} & {Path(file).resolve() for file in table.files}
    if both:
        raise FileError(f"{both.pop()} is both an input and an output")
