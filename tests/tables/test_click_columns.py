"""Columns of clicks beside user, item and time, in every format."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.clicks.readers import read_clicks
from model.errors import DataError
from persona.tables import NoSuchColumn, TableError, TableOptions, open_table
from persona.tables.rows import Batch, Reject

COLUMNS = TableOptions(click_columns=(("event", "category"), ("price", "number")))
CSV = """user,item,time,event,price
bob,x,9,7,
ann,b,2,cart,0.5
ann,a,1,,3
ann,c,3,view,nan
"""
JSON = """{"user": "bob", "item": "x", "time": 9, "event": 7}
{"user": "ann", "item": "b", "time": 2, "event": "cart", "price": 0.5}
{"user": "ann", "item": "a", "time": 1, "event": null, "price": "3"}
{"user": "ann", "item": "c", "time": 3, "event": "view", "price": null}
"""


def write(folder: Path, kind: str) -> Path:
    path = folder / f"clicks.{kind}"
    if kind == "parquet":
        columns = {
            "user": ["bob", "ann", "ann", "ann"],
            "item": ["x", "b", "a", "c"],
            "time": [9, 2, 1, 3],
            "event": pa.array(["7", "cart", None, "view"]).dictionary_encode(),
            "price": pa.array([None, 0.5, 3.0, float("nan")], pa.float32()),
        }
        pq.write_table(pa.table(columns), path)
    else:
        path.write_text(CSV if kind == "csv" else JSON)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_columns_come_with_the_clicks_of_each_user(kind: str, tmp_path: Path) -> None:
    with open_table(write(tmp_path, kind), COLUMNS) as table:
        batches = [batch for batch in table if isinstance(batch, Batch)]
    events = [values for batch in batches for values in batch.columns["event"]]
    prices = [values for batch in batches for values in batch.columns["price"]]
    assert events == [[None, "cart", "view"], ["7"]]
    assert prices == [[3.0, 0.5, None], [None]]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_histories_have_columns_as_arrays(kind: str, tmp_path: Path) -> None:
    histories, report = read_clicks(write(tmp_path, kind), None, COLUMNS)
    events = [histories.texts["event"][place] for place in histories.columns["event"][1:]]
    assert events == ["cart", "view", "7"]
    assert histories.columns["event"][0] == -1  # no value
    np.testing.assert_array_equal(histories.columns["price"], [3, 0.5, np.nan, np.nan])
    assert report.broken_rows == 0


def test_a_number_that_cannot_be_read_rejects_its_row(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("user,item,event,price\nann,a,view,cheap\nann,b,view,inf\nann,c,view,1\n")
    with open_table(path, COLUMNS) as table:
        rejects = [part for part in table if isinstance(part, Reject)]
    assert [(one.line, one.reason) for one in rejects] == [
        (2, "price 'cheap' is not a number"),
        (3, "price 'inf' is not a number"),
    ]


def test_only_a_table_with_one_click_a_row_has_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item\nann,a\n")
    with pytest.raises(NoSuchColumn, match="no column 'event' among 'user', 'item'"):
        open_table(path, COLUMNS)
    path.write_text("id,history\nann,a b\n")
    with pytest.raises(TableError, match="only a table with one click a row has their columns"):
        open_table(path, COLUMNS)
    path = tmp_path / "a.seq"
    path.write_text("a b\n\n% Sequences:\n\n1 2 1\n")
    with pytest.raises(DataError, match="the format msnbc has no columns of clicks"):
        read_clicks(path, "msnbc", COLUMNS)
