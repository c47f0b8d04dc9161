"""Encodes batches of rows, and turns the rows that the scorer refuses into rejects."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from persona.contract import DeadlineExceeded, InvalidRequest, PersonaError, RequestTooLarge
from persona.results import Encoded
from persona.scoring.rows import Reject, Row, ScoredRows, shown

CLICKS_PER_BATCH = 50_000

Encode = Callable[[list[Row]], Encoded]


@dataclass(frozen=True)
class Outcome:
    """The rows of one batch: each is scored or rejected."""

    scored: list[ScoredRows]
    rejects: list[Reject]


def batches(rows: Iterable[Row | Reject], max_rows: int) -> Iterator[list[Row | Reject]]:
    """Batches of at most `max_rows` rows, fewer if the histories are long."""
    batch, clicks = list[Row | Reject](), 0
    for row in rows:
        batch.append(row)
        clicks += len(row.history) if isinstance(row, Row) else 0
        if len(batch) >= max_rows or clicks >= CLICKS_PER_BATCH:
            yield batch
            batch, clicks = [], 0
    if batch:
        yield batch


def encode_batch(encode: Encode, batch: Sequence[Row | Reject]) -> Outcome:
    """Encodes the rows of a batch.

    Raises:
        PersonaError: the scorer fails for a reason that is not in one row.
    """
    rejects = [row for row in batch if isinstance(row, Reject)]
    scored = []
    for part in _encoded_parts(encode, [row for row in batch if isinstance(row, Row)]):
        if isinstance(part, Reject):
            rejects.append(part)
        else:
            scored.append(part)
    return Outcome(scored, sorted(rejects, key=lambda reject: reject.number))


def _encoded_parts(encode: Encode, rows: list[Row]) -> Iterator[ScoredRows | Reject]:
    """Encodes all rows, without those that the scorer refuses.

    The rows after a refused one are halved. So n refused rows cost n log n encoded rows, not n
    squared.
    """
    if not rows:
        return
    try:
        yield ScoredRows(rows, encode(rows))
    except InvalidRequest as error:
        refused = _refused_row(error, len(rows))
        yield from _encoded_parts(encode, rows[:refused])
        yield _reject(rows[refused], error, refused)
        yield from _encoded_halves(encode, rows[refused + 1 :])
    except (RequestTooLarge, DeadlineExceeded) as error:
        if len(rows) > 1:
            yield from _encoded_halves(encode, rows)
        elif isinstance(error, RequestTooLarge):
            yield _reject(rows[0], error, 0)
        else:
            raise


def _encoded_halves(encode: Encode, rows: list[Row]) -> Iterator[ScoredRows | Reject]:
    middle = len(rows) // 2
    yield from _encoded_parts(encode, rows[:middle])
    yield from _encoded_parts(encode, rows[middle:])


def _refused_row(error: InvalidRequest, n_rows: int) -> int:
    """Position of the refused row; raises the error again if it is not about one row."""
    if error.history is None or not 0 <= error.history < n_rows:
        raise error
    return error.history


def _reject(row: Row, error: PersonaError, position: int) -> Reject:
    # The message counts within the batch, which the reader of the rejects does not know.
    reason = re.sub(rf"^history {position}\b", "the history", str(error))
    return Reject(row.number, row.line, reason, shown(row.history))
