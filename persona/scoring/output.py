"""What the model says of the rows of a part, as a table."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from persona.results import Encoded
from persona.scoring.formats import EMBEDDING, FORMATS
from persona.scoring.parts import Part
from persona.scoring.scorer import ModelFacts, Plan
from persona.tables import Reject

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

    def fill(self, positions: Sequence[int], encoded: Encoded) -> None:
        """Takes the answers for some rows."""
        at = np.asarray(positions)
        self.filled[at] = True
        self.embeddings[at] = encoded.embeddings
        self.used[at] = [user.used for user in encoded.users]
        self.truncated[at] = [user.truncated for user in encoded.users]
        self.unknown[at] = [user.unknown for user in encoded.users]


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
    numbers = rows.embeddings.astype(np.float16) if plan.float16 else rows.embeddings
    columns[EMBEDDING] = pa.FixedSizeListArray.from_arrays(numbers.ravel(), facts.width)
    for name in ("used", "truncated", "unknown"):
        columns[name] = pa.array(getattr(rows, name))
    table = pa.table(columns)
    if not rows.filled.all():
        table = table.filter(pa.array(rows.filled))
    told = {"model": facts.name, "version": facts.version, "checksum": facts.checksum}
    return table.replace_schema_metadata({f"persona.{key}": one for key, one in told.items()})


def _ids(part: Part, id_type: pa.DataType) -> pa.Array:
    ids: list[Any] = list(part.ids)
    if pa.types.is_string(id_type):
        ids = [None if one is None else str(one) for one in ids]
    return pa.array(ids, id_type)
