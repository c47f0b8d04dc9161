"""What the model says of the rows of a part, as a table."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from persona.contract import Floats, ItemId
from persona.scoring.errors import ScoringError
from persona.scoring.formats import EMBEDDING, FORMATS
from persona.scoring.parts import Part
from persona.scoring.scorer import Answer, ModelFacts, Plan
from persona.tables.rows import Reject

REJECTS = "rejects.jsonl"


def data_file(suffix: str) -> str:
    """The name of a part's file."""
    return f"data{suffix}"


class Rows:
    """What the model says of the rows of a part, filled in any order."""

    def __init__(self, size: int, width: int) -> None:
        self.filled = np.zeros(size, np.bool_)
        self.embeddings = np.zeros((size, width), np.float32)
        self.used, self.truncated, self.unknown = np.zeros((3, size), np.int32)
        self.items: list[list[ItemId] | None] = [None] * size
        self.scores: list[Floats | None] = [None] * size

    def fill(self, positions: Sequence[int], answer: Answer) -> None:
        """Takes the answer for some rows."""
        at, users = np.asarray(positions), answer.either.users
        self.filled[at] = True
        self.used[at] = [user.used for user in users]
        self.truncated[at] = [user.truncated for user in users]
        self.unknown[at] = [user.unknown for user in users]
        if answer.encoded is not None:
            self.embeddings[at] = answer.encoded.embeddings
        if answer.recommended is not None:
            for position, user in zip(positions, answer.recommended.users, strict=True):
                self.items[position], self.scores[position] = user.items, user.scores


def part_files(
    part: Part, rows: Rows, rejects: Sequence[Reject], plan: Plan, facts: ModelFacts
) -> dict[str, bytes]:
    """The contents of a part's files, by name."""
    contents = FORMATS[plan.format].files(_table(part, rows, plan, facts))
    lines = [orjson.dumps(asdict(reject)) + b"\n" for reject in rejects]
    files = {data_file(suffix): content for suffix, content in contents.items()}
    return {**files, REJECTS: b"".join(lines)}


def _table(part: Part, rows: Rows, plan: Plan, facts: ModelFacts) -> pa.Table:
    """The rows that were scored, in the order of the input."""
    columns = {"row": pa.array(part.rows, pa.int64()), "id": _ids(part, plan.id_type)}
    kept = pa.concat_tables([plan.kept.empty_table(), *part.passed])
    columns |= dict(zip(kept.column_names, kept.columns, strict=True))
    kind = np.float16 if plan.float16 else np.float32
    number = pa.from_numpy_dtype(kind)
    if plan.embeddings:
        numbers = rows.embeddings.astype(kind)
        columns[EMBEDDING] = pa.FixedSizeListArray.from_arrays(numbers.ravel(), facts.width)
    if plan.recommend is not None:
        columns["items"] = _items(rows.items, pa.type_for_alias(facts.items))
        columns["scores"] = pa.array(rows.scores, pa.list_(number))
    for name in ("used", "truncated", "unknown"):
        columns[name] = pa.array(getattr(rows, name))
    table = pa.table(columns)
    if not rows.filled.all():
        table = table.filter(pa.array(rows.filled))
    told = {"model": facts.name, "version": facts.version, "checksum": facts.checksum}
    return table.replace_schema_metadata({f"persona.{key}": one for key, one in told.items()})


def _items(items: list[list[ItemId] | None], item_type: pa.DataType) -> pa.Array:
    if pa.types.is_string(item_type):
        items = [None if row is None else [str(item) for item in row] for row in items]
    try:
        return pa.array(items, pa.list_(item_type))
    except (pa.ArrowException, TypeError) as error:
        raise ScoringError(f"the items are not all integers, as the first is: {error}") from error


def _ids(part: Part, id_type: pa.DataType) -> pa.Array:
    ids: list[Any] = list(part.ids)
    if pa.types.is_string(id_type):
        ids = [None if one is None else str(one) for one in ids]
    return pa.array(ids, id_type)
