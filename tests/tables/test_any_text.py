"""Whatever a text holds: what was written is read, and every line is a click or a reject."""

import csv
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.tables import TableOptions, open_table
from tests.tables.reading import read

pytestmark = pytest.mark.slow  # thousands of generated files

FIELD = st.text("a7\"',;|: \t\\é$[]{}", max_size=6).map(lambda text: f"x{text}y")
ROWS = st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=5, unique_by=lambda row: row[0])
LINES = st.lists(st.binary(max_size=12).filter(lambda raw: b"\n" not in raw), max_size=8)


@pytest.mark.parametrize("delimiter", [",", ";", "|", " "])
@given(rows=ROWS, quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
@settings(deadline=None, max_examples=25)
def test_what_the_csv_module_writes_is_read(
    delimiter: str, rows: list[tuple[str, str]], quoting: int
) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows([("user", "item"), *rows])  # type: ignore[arg-type]  # one of its constants
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text(text.getvalue(), newline="")
        found = read(path, delimiter=delimiter, header=True)
    assert found == ([(user, [item]) for user, item in sorted(rows)], [])


@given(rows=ROWS)
@settings(deadline=None, max_examples=25)
def test_what_the_json_module_writes_is_read(rows: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"user": user, 'an "item"/~': item}) for user, item in rows]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_text("\n".join(lines))
        found = read(path, item='an "item"/~')
    assert found == ([(user, [item]) for user, item in sorted(rows)], [])


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@given(lines=LINES)
@settings(deadline=None, max_examples=40)
def test_every_line_is_a_click_or_a_reject(ending: str, lines: list[bytes]) -> None:
    good = b'{"user": 1, "item": 2}' if ending == "jsonl" else b"1,2"
    first = good if ending == "jsonl" else b"user,item"
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{ending}"
        path.write_bytes(b"\n".join([first, *[good] * 9, *lines]))
        options = TableOptions(format="csv" if ending == "csv" else "jsonl", delimiter=",")
        with open_table(path, options) as table:
            rows = table.rows
    blank = sum(not line.strip() for line in lines)
    assert rows == 9 + (ending == "jsonl") + len(lines) - blank
