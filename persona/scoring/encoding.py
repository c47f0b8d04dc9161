"""Scores one part: encodes its histories in batches of like lengths, and writes its files."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest

import numpy as np

from persona.coded import CodedHistories
from persona.contract import DeadlineExceeded, InvalidRequest, RequestTooLarge
from persona.results import ModelChanged
from persona.scoring.output import Rows, part_files
from persona.scoring.parts import Part
from persona.scoring.scorer import Answer, Asked, Counts, Histories, ModelFacts, Plan, ScoredPart
from persona.tables.rows import Reject, shown

Positions = Sequence[int]  # of histories in their part


@dataclass
class Batch:
    """What became of a batch: its answers, and the histories that were refused."""

    answers: list[tuple[Positions, Answer]] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)  # position and reason


EncodeBatch = Callable[[Positions], Batch]
Each = Callable[[EncodeBatch, Iterable[Positions]], Iterable[Batch]]


def score_part(
    model: Asked, plan: Plan, facts: ModelFacts, part: Part, each: Each = map
) -> ScoredPart:
    """Scores a part.

    Args:
        model: what answers.
        plan: what is wanted.
        facts: of the model that must answer.
        part: the rows.
        each: `map`, or what does the same for several batches at a time.

    Raises:
        ModelChanged: another model or version answers, or one of another width.
        PersonaError: the model fails for a reason that is not in one history.
    """
    tokens, computed_tokens = model.tokens, model.computed_tokens
    rows, refused = Rows(len(part.rows), facts.width), list[Reject]()
    encode, lengths = partial(encode_batch, model, part.asked), part.histories.lengths.tolist()
    for batch in each(encode, batches(lengths, model.batch_rows, model.batch_clicks)):
        for positions, answer in batch.answers:
            _check(answer, facts)
            rows.fill(positions, answer)
        refused += [_reject(part, position, reason) for position, reason in batch.refused]
    rejects = sorted([*part.rejects, *refused], key=lambda reject: reject.row)
    counts = Counts(
        rows=part.size,
        scored=int(rows.filled.sum()),
        rejected=len(rejects),
        unknown=int(rows.unknown.sum()),
        truncated=int(np.count_nonzero(rows.truncated)),
        tokens=model.tokens - tokens,
        computed_tokens=model.computed_tokens - computed_tokens,
    )
    return ScoredPart(part.number, counts, part_files(part, rows, rejects, plan, facts))


def batches(lengths: Sequence[int], max_rows: int, max_clicks: int) -> Iterator[Positions]:
    """Positions of histories of like lengths; a longer history than `max_clicks` is alone.

    Short and long ones take turns. A service computes long ones for longer than it takes to ask
    for them, short ones not: if all of a kind came together, one side would wait for the other.
    """
    found = list(_by_length(lengths, max_rows, max_clicks))
    middle = (len(found) + 1) // 2
    for short, long in zip_longest(found[:middle], reversed(found[middle:])):
        yield short
        if long is not None:
            yield long


def _by_length(lengths: Sequence[int], max_rows: int, max_clicks: int) -> Iterator[Positions]:
    """Such positions, shortest first."""
    batch, clicks = list[int](), 0
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        clicks += lengths[position]
        if batch and (len(batch) == max_rows or clicks > max_clicks):
            yield batch
            batch, clicks = [], lengths[position]
        batch.append(position)
    if batch:
        yield batch


def encode_batch(model: Asked, histories: Histories, positions: Positions) -> Batch:
    """Asks for some of the histories, without those that the model refuses.

    After a refusal only the rest is tried again. What came before it is encoded at the end: so each
    refusal costs a short request, and no history is computed twice.
    """
    batch, rest, accepted = Batch(), positions, list[int]()
    while rest:
        try:
            batch.answers.append((rest, model.answer(_chosen(histories, rest))))
            break
        except InvalidRequest as error:
            refused = _refused(error, len(rest))
            batch.refused.append((rest[refused], _reason(error, refused)))
            accepted += rest[:refused]
            rest = rest[refused + 1 :]
        except (RequestTooLarge, DeadlineExceeded) as error:
            if len(rest) == 1 and isinstance(error, RequestTooLarge):
                batch.refused.append((rest[0], str(error)))
            elif len(rest) == 1:
                raise
            else:
                middle = len(rest) // 2
                _add(batch, encode_batch(model, histories, rest[:middle]))
                _add(batch, encode_batch(model, histories, rest[middle:]))
            break
    if accepted:
        _add(batch, encode_batch(model, histories, accepted))
    return batch


def _chosen(histories: Histories, positions: Positions) -> Histories:
    if isinstance(histories, CodedHistories):
        return histories.take(positions)
    return [histories[at] for at in positions]


def _add(batch: Batch, other: Batch) -> None:
    batch.answers += other.answers
    batch.refused += other.refused


def _refused(error: InvalidRequest, n_histories: int) -> int:
    """Position of the refused history; raises the error again if it is not about one."""
    if error.history is None or not 0 <= error.history < n_histories:
        raise error
    return error.history


def _reason(error: InvalidRequest, position: int) -> str:
    # The message counts within the request, which the reader of the rejects does not know.
    return re.sub(rf"^history {position}\b", "the history", str(error))


def _reject(part: Part, position: int, reason: str) -> Reject:
    user = part.ids[position]
    return Reject(
        row=part.rows[position],
        line=part.lines[position],
        file=part.file,
        user=None if user is None else str(user),
        reason=reason,
        raw=shown(part.histories[position]),
    )


def _check(answer: Answer, facts: ModelFacts) -> None:
    for found in answer.parts:
        if (found.model, found.version) != (facts.name, facts.version):
            raise ModelChanged(
                f"the model changed from {facts.name} version {facts.version} to {found.model} "
                f"version {found.version} on the way"
            )
    if answer.encoded is not None and answer.encoded.embeddings.shape[1] != facts.width:
        raise ModelChanged(
            f"{facts.name} version {facts.version} answers with embeddings of "
            f"{answer.encoded.embeddings.shape[1]} numbers, and has a width of {facts.width}"
        )
