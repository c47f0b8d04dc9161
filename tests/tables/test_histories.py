"""Tables with one user a row."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persona.tables import Reject, TableError, TableOptions, open_table
from tests.tables.reading import read

LISTS = pa.array([["a", "b"], None, ["c", None], []], pa.list_(pa.string()))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_json_lists_keep_the_types_of_their_items(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,history\n7,"[1, ""a""]"\n8,[]\n')
    assert read(path) == ([(7, [1, "a"]), (8, [])], [])


@pytest.mark.parametrize("separator", [" ", "|", ",", ";"])
def test_items_may_have_a_separator(tmp_path: Path, separator: str) -> None:
    text = "id\thistory\n7\t10 20 30\n8\t5\n".replace(" ", separator)
    assert read(write(tmp_path / "a.tsv", text)) == ([(7, [10, 20, 30]), (8, [5])], [])


@pytest.mark.parametrize("history", ["10|20|", "10 | 20", "10|20"])
def test_items_may_end_with_a_separator_or_have_spaces(tmp_path: Path, history: str) -> None:
    path = write(tmp_path / "a.csv", f"id,history\n7,{history}\n")
    assert read(path)[0] == [(7, [10, 20])]


def test_an_empty_item_is_no_item(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,history\n7,a||b\n8,c|d\n")
    rows, rejects = read(path)
    assert rows == [(8, ["c", "d"])]
    assert [r.reason for r in rejects] == ["click 1 is empty"]


def test_low_ratings_of_users_do_not_count(tmp_path: Path) -> None:
    table = pa.table({"id": [7, 8], "history": [[1], [2]], "rating": [1, 5]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", min_rating=4)[0] == [(8, [2])]


def test_items_are_integers_only_if_all_in_the_table_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,history\n7,10 20\n8,x\n")
    assert read(path)[0] == [(7, ["10", "20"]), (8, ["x"])]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"id": 1}', "the history is missing"),
        ('{"id": 1, "history": 5}', "the history is an integer, not a list"),
        ('{"id": 1, "history": ["a", null]}', "click 1 is null, not text or an integer"),
        ('{"id": 1.5, "history": []}', "the id is a float, not text or an integer"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
    ],
)
def test_a_broken_row_is_rejected_with_its_line(tmp_path: Path, row: str, reason: str) -> None:
    good = '{"id": "ann", "history": ["a"]}\n'
    rows, rejects = read(write(tmp_path / "a.jsonl", f"{good}\n{row}\n{good}"))
    assert rows == [("ann", ["a"])] * 2
    assert [(r.row, r.line, r.reason, r.raw) for r in rejects] == [(1, 3, reason, row)]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_(pa.string(), 2)]
)
def test_parquet_lists_of_any_kind_are_histories(tmp_path: Path, kind: pa.DataType) -> None:
    histories = pa.array([["a", "b"], ["c", "d"]], kind)
    pq.write_table(pa.table({"id": [7, 8], "history": histories}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0] == [(7, ["a", "b"]), (8, ["c", "d"])]


def test_broken_histories_in_parquet_are_rejected_by_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"history": LISTS}), tmp_path / "a.parquet")
    rows, rejects = read(tmp_path / "a.parquet")
    assert rows == [(None, ["a", "b"]), (None, [])]
    assert [(r.row, r.line, r.reason) for r in rejects] == [
        (1, None, "the history is missing"),
        (2, None, "click 1 is null, not text or an integer"),
    ]


def test_text_in_parquet_may_be_a_history(tmp_path: Path) -> None:
    table = pa.table({"id": ["u"], "history": ["3 4"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0] == [("u", [3, 4])]


def test_histories_of_fractions_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"history": [[1.5]]}), tmp_path / "a.parquet")
    with pytest.raises(TableError, match=r"'history' is list<.*double>, a history is a list of"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_columns_are_passed_through_for_the_rows_that_count(tmp_path: Path, ending: str) -> None:
    columns = {"history": [[1], None, [2], [3]], "country": ["de", "it", "fr", "de"]}
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table(columns), path)
    elif ending == "jsonl":
        rows = pa.table(columns).to_pylist()
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        path.write_text("history|country\n[1]|de\n|it\n[2]|fr\n[3]|de\n")
    options = TableOptions(columns=("country",), where="country <> 'fr'")
    with open_table(path, options) as table:
        batches = [part for part in table if not isinstance(part, Reject)]
        assert table.schema == pa.schema([("country", pa.string())])
    (batch,) = batches
    assert batch.passed.column("country").to_pylist() == ["de", "de"]
    assert (list(batch.rows), batch.histories) == ([0, 3], [[1], [3]])


@pytest.mark.parametrize(
    ("ids", "kind"), [("7,8", pa.int64()), ("7,x", pa.string()), ("7,08", pa.string())]
)
def test_the_type_of_ids_is_known_before_the_first_row(
    tmp_path: Path, ids: str, kind: pa.DataType
) -> None:
    rows = "".join(f"{user},1\n" for user in ids.split(","))
    with open_table(write(tmp_path / "a.csv", f"id,history\n{rows}")) as table:
        assert (table.id_type, table.rows) == (kind, 2)


def test_a_line_that_is_too_long_is_one_rejected_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    good = b'{"id": 1, "history": []}\n'
    with path.open("wb") as file:
        file.write(good + b'{"id": 2, "history": [' + b"1," * 9_000_000 + b"1]}\n" + good)
    rows, rejects = read(path)
    assert rows == [(1, [])] * 2
    assert [r.reason for r in rejects] == ["the line has more than 16777216 bytes"]


def test_text_that_cannot_be_decoded_is_one_rejected_row(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    column = pa.chunked_array([pa.array(["7"]), broken, pa.array(["9"])])
    table = pa.table({"id": column, "history": [[1], [2], [3]]})
    pq.write_table(table, tmp_path / "a.parquet")
    rows, rejects = read(tmp_path / "a.parquet")
    assert rows == [("7", [1]), ("9", [3])]
    assert [(r.row, r.reason) for r in rejects] == [(1, "not UTF-8")]
