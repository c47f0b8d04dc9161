"""Small tables of histories, and outputs read back."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def write_parquet(path: Path, histories: list[Any], ids: list[Any] | None = None) -> Path:
    table = {"history": pa.array(histories, pa.list_(pa.string()))}
    pq.write_table(pa.table(table | ({} if ids is None else {"id": ids})), path)
    return path


def write_table(path: Path, ids: list[str], histories: list[list[str]]) -> Path:
    """A table in the format that the name ends with."""
    if path.suffix == ".parquet":
        return write_parquet(path, histories, ids)
    if path.suffix == ".jsonl":
        pairs = zip(ids, histories, strict=True)
        return write_jsonl(path, [{"id": one, "history": history} for one, history in pairs])
    with path.open("w", newline="") as file:
        rows = zip(ids, map(json.dumps, histories), strict=True)
        csv.writer(file).writerows([("id", "history"), *rows])
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_output(path: Path) -> list[dict[str, Any]]:
    """The rows of an output; embeddings as lists."""
    match path.suffix:
        case ".parquet":
            rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
            return rows
        case ".jsonl":
            return read_jsonl(path)
        case ".npy":
            others = read_jsonl(path.with_suffix(".ids.jsonl"))
            pairs = zip(others, np.load(path).tolist(), strict=True)
            return [row | {"embedding": embedding} for row, embedding in pairs]
    with path.open(newline="") as file:
        return [
            row | {"embedding": json.loads(row["embedding"]), "row": int(row["row"])}
            for row in csv.DictReader(file)
        ]


def rejects_of(target: Path) -> list[dict[str, Any]]:
    return read_jsonl(target.with_name(f"{target.name}.rejects.jsonl"))


def content_of(target: Path) -> dict[str, bytes]:
    """The bytes of everything that a run leaves, by what follows the output's name."""
    left = sorted(target.parent.glob(f"{target.name}*"))
    return {path.name.removeprefix(target.name): path.read_bytes() for path in left}
