"""Every click format read from small files, and the real ones where they are at hand."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.clicks.histories import Histories
from model.clicks.readers import detect_format, read_clicks
from model.errors import DataError
from persona.tables import NoSuchColumn, TableError, TableOptions

REAL = Path(__file__).parents[3] / "shared" / "data"
MSNBC = """% Different categories found in input file:\r
\r
frontpage news tech\r
\r
% Sequences:\r
\r
"""
Write = Callable[[str, str | bytes], Path]
VISIT = "%s\t%d\t60\t%s\tTarget\ttimeout\n"


def named(histories: Histories) -> dict[str | int, list[str | int]]:
    """Item ids by user id."""
    return {
        user: [histories.item_ids[i] for i in histories[u]]
        for u, user in enumerate(histories.user_ids)
    }


def real(name: str) -> Path:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{path} is not here, only generated data is tested")
    return path


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def test_msnbc_numbers_are_read_as_the_sections_of_the_header(write: Write) -> None:
    histories, report = read_clicks(write("a.seq", MSNBC + "1 1 \r\n3 2 \r\n"))
    assert named(histories) == {1: ["frontpage", "frontpage"], 2: ["tech", "news"]}
    assert histories.item_ids == ["frontpage", "news", "tech"]
    assert (report.rows, report.broken_rows, report.repeated_clicks) == (2, 0, 1)


def test_a_broken_msnbc_line_is_reported_and_its_visitor_number_left_out(write: Write) -> None:
    histories, report = read_clicks(write("a.seq", MSNBC + "1\r\n2 18\r\n3\r\n"))
    assert list(histories.user_ids) == [1, 3]
    assert report.broken[0].line == 8
    assert report.broken[0].reason == "'18' is not a section number, 1 to 3"


def test_msnbc_without_its_header_is_refused(write: Write) -> None:
    with pytest.raises(DataError, match="line 1 has views before the header"):
        read_clicks(write("a.seq", "1 1\n2\n"))


def test_sasrec_lines_become_one_history_a_user(write: Write) -> None:
    histories, report = read_clicks(write("a.txt", "1 10\n1 9\n2 10\n"))
    assert report.format == "sasrec"
    assert named(histories) == {1: [10, 9], 2: [10]}
    assert histories.item_ids == [9, 10]


@pytest.mark.parametrize("line", ["1", "1 2 3", "1 x", f"1 {2**63}"])
def test_a_broken_sasrec_line_is_reported_and_reading_goes_on(write: Write, line: str) -> None:
    histories, report = read_clicks(write("a.txt", f"1 1\n{line}\n1 2\n"), "sasrec")
    assert named(histories) == {1: [1, 2]}
    assert [broken.line for broken in report.broken] == [2]
    assert "is not two integers" in report.broken[0].reason


def test_a_visitors_paths_are_joined_in_time_order(write: Write) -> None:
    content = VISIT % ("ann", 20, "Sun;Moon_%28x%29") + VISIT % ("ann", 10, "Sea")
    histories, report = read_clicks(write("a.tsv", "# header\n\n" + content))
    assert report.format == "wikispeedia"
    assert named(histories) == {"ann": ["Sea", "Sun", "Moon (x)"]}


def test_a_back_click_counts_as_a_click_on_the_article_returned_to(write: Write) -> None:
    histories, _ = read_clicks(write("a.tsv", VISIT % ("ann", 1, "A;B;C;<;<;D;<")))
    assert named(histories) == {"ann": ["A", "B", "C", "B", "A", "D", "A"]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (VISIT % ("ann", 1, "A;<"), "back click on the first article"),
        (VISIT % ("ann", 1, "A;;B"), "empty title"),
        (VISIT % ("ann", 1, "%FF"), "can't decode"),
        ("ann\tnoon\t60\tA\tT\ttimeout\n", "time 'noon'"),
        ("ann\t1\n", "2 fields"),
    ],
)
def test_a_broken_path_is_reported_with_its_line(write: Write, line: str, reason: str) -> None:
    content = VISIT % ("bob", 1, "A") + line
    histories, report = read_clicks(write("a.tsv", content), "wikispeedia")
    assert named(histories) == {"bob": ["A"]}
    assert report.broken[0].line == 2
    assert reason in report.broken[0].reason


def test_a_path_that_stands_twice_is_counted_and_kept(write: Write) -> None:
    histories, report = read_clicks(write("a.tsv", 2 * (VISIT % ("ann", 1, "A;B"))))
    assert report.repeated_rows == 1
    assert named(histories) == {"ann": ["A", "B", "A", "B"]}


def test_mind_clicks_follow_the_history_in_time_order(write: Write) -> None:
    morning = "2\tU1\t11/12/2019 8:00:00 AM\tN1 N2\tN3-1 N4-0\n"
    evening = "1\tU1\t11/12/2019 7:00:00 PM\tN1 N2\tN5-1\n"
    histories, report = read_clicks(write("behaviors.tsv", evening + morning))
    assert report.format == "mind"
    assert named(histories) == {"U1": ["N1", "N2", "N3", "N5"]}


def test_mind_clicks_that_the_newest_history_holds_are_not_read_twice(write: Write) -> None:
    older = "1\tU1\t11/12/2019 8:00:00 AM\tN1\tN2-1\n"
    newer = "2\tU1\t11/13/2019 8:00:00 AM\tN1 N2\tN3-1\n"
    histories, _ = read_clicks(write("behaviors.tsv", newer + older))
    assert named(histories) == {"U1": ["N1", "N2", "N3"]}


def test_a_mind_user_without_a_click_is_kept_with_an_empty_history(write: Write) -> None:
    rows = "1\tU1\t11/12/2019 8:00:00 AM\t\tN1-0\n2\tU2\t11/12/2019 8:00:00 AM\tN1\tN2-0\n"
    histories, report = read_clicks(write("behaviors.tsv", rows))
    assert named(histories) == {"U1": [], "U2": ["N1"]}
    assert report.empty_users == 1


def test_csv_clicks_are_ordered_by_time_and_ties_stay_in_file_order(write: Write) -> None:
    rows = "user,item,time\nann,b,2\nann,c,2\nann,a,1\nann,a,2\n"
    histories, report = read_clicks(write("a.csv", rows))
    assert named(histories) == {"ann": ["a", "b", "c", "a"]}
    assert report.rows == 4


def test_csv_columns_can_have_any_name_and_integer_ids_are_integers(write: Write) -> None:
    path = write("a.csv", "who,what,when\n7,007,2020-01-02T00:00:00Z\n7,8,2020-01-01\n")
    histories, _ = read_clicks(path, options=TableOptions(user="who", item="what", time="when"))
    assert named(histories) == {7: ["8", "007"]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"ann,a", "2 fields, the header has 3"),
        (b"ann,,1", "no item"),
        (b"ann,a,noon", "neither a number nor ISO 8601"),
        (b"ann,a,nan", "neither a number nor ISO 8601"),
        (b'ann,"a"x,1', "a quote that is not closed or not escaped"),
        (b"ann,\xff,1", "not UTF-8"),
    ],
)
def test_a_broken_csv_row_is_reported_with_its_line(write: Write, row: bytes, reason: str) -> None:
    content = b"user,item,time\nbob,b,1\n\n" + row + b"\nbob,c,2\n"
    histories, report = read_clicks(write("a.csv", content))
    assert named(histories) == {"bob": ["b", "c"]}
    assert [broken.line for broken in report.broken] == [4]
    assert reason in report.broken[0].reason


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("gap", [",", "\t"])
def test_csv_may_have_tabs_and_a_byte_order_mark(write: Write, mark: str, gap: str) -> None:
    path = write("a.csv", mark + "user,item\nann,a\n".replace(",", gap))
    assert named(read_clicks(path)[0]) == {"ann": ["a"]}


def test_a_row_is_a_line_even_within_quotes(write: Write) -> None:
    path = write("a.csv", 'user,item\nann,"a\nb"\nann,c\n')
    histories, report = read_clicks(path)
    assert named(histories) == {"ann": ["c"]}
    assert [broken.line for broken in report.broken] == [2, 3]


def test_a_missing_column_is_named_beside_those_that_are_there(write: Write) -> None:
    with pytest.raises(NoSuchColumn, match="no column 'item' among 'user', 'article'"):
        read_clicks(write("a.csv", "user,article\nann,1\n"))


def test_a_time_column_asked_for_must_be_there(write: Write) -> None:
    with pytest.raises(NoSuchColumn, match="no column 'at'"):
        read_clicks(write("a.csv", "user,item\nann,1\n"), options=TableOptions(time="at"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1]", "not a JSON object"),
        ("{", "not JSON"),
        ('{"user": "ann"}', "no item"),
        ('{"user": "ann", "item": true}', "neither a string nor an integer"),
        ('{"user": "ann", "item": 1.5}', "neither a string nor an integer"),
    ],
)
def test_a_broken_jsonl_line_is_reported_with_its_number(
    write: Write, line: str, reason: str
) -> None:
    content = f'{{"user": "ann", "item": "a"}}\n{line}\n{{"user": "ann", "item": 2}}\n'
    histories, report = read_clicks(write("a.jsonl", content))
    assert named(histories) == {"ann": ["a", 2]}
    assert [broken.line for broken in report.broken] == [2]
    assert reason in report.broken[0].reason


def test_rows_of_the_same_user_item_and_time_are_counted_and_kept(write: Write) -> None:
    rows = [{"user": 1, "item": 1, "time": 5}] * 3 + [{"user": 1, "item": 1, "time": 6}]
    histories, report = read_clicks(write("a.jsonl", "\n".join(map(json.dumps, rows))))
    assert (report.repeated_rows, report.repeated_clicks) == (2, 3)
    assert named(histories) == {1: [1, 1, 1, 1]}


def test_parquet_rows_without_a_value_are_reported_once(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user": ["ann", None, "ann", "bob", ""],
            "item": pa.array([3, None, 1, 2, 2], pa.int32()),
            "time": pa.array([2, 1, 1, None, 1], pa.timestamp("s")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    histories, report = read_clicks(tmp_path / "a.parquet")
    assert named(histories) == {"ann": [1, 3]}
    reasons = [(broken.line, broken.reason) for broken in report.broken]
    assert reasons == [(2, "no user"), (4, "no time"), (5, "no user")]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_parquet_ids_may_be_any_kind_of_string(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"user": [1, 1, 2], "item": pa.array(["b", "a", "b"]).cast(kind)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert named(read_clicks(tmp_path / "a.parquet")[0]) == {1: ["b", "a"], 2: ["b"]}


@pytest.mark.parametrize(
    "times",
    [
        pa.array([3, 1, 2], pa.uint32()),
        pa.array([0.3, 0.1, 0.2]),
        pa.array([3, 1, 2], pa.timestamp("ns", "UTC")),
        pa.array([3, 1, 2], pa.date32()),
        pa.array(["2020-01-03", "2020-01-01", "2020-01-02T05:00:00+01:00"]),
    ],
)
def test_parquet_times_may_be_of_any_kind(tmp_path: Path, times: pa.Array) -> None:
    pq.write_table(pa.table({"user": [1] * 3, "item": [3, 1, 2], "time": times}), tmp_path / "a.pq")
    assert named(read_clicks(tmp_path / "a.pq")[0]) == {1: [1, 2, 3]}


def test_an_empty_parquet_file_is_refused(tmp_path: Path) -> None:
    table = pa.table({"user": pa.array([], pa.string()), "item": pa.array([], pa.int64())})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="nothing usable in 0 rows"):
        read_clicks(tmp_path / "a.parquet")


def test_only_the_first_thousand_reasons_are_kept(write: Write) -> None:
    _, report = read_clicks(write("a.txt", "1 1\n" + 1_200 * "rubbish\n"))
    assert (report.broken_rows, len(report.broken)) == (1_200, 1_000)


def test_parquet_ids_that_are_fractions_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1.5], "item": [1]}), tmp_path / "a.parquet")
    with pytest.raises(TableError, match="'user' is double, ids must be strings or integers"):
        read_clicks(tmp_path / "a.parquet")


def test_the_same_clicks_read_the_same_from_csv_jsonl_and_parquet(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(0, 9, 300).tolist() for name in ("user", "item", "time")}
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "a.parquet")
    rows = table.to_pylist()
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = "\n".join(",".join(map(str, row.values())) for row in rows)
    (tmp_path / "a.csv").write_text("user,item,time\n" + text)
    read = [read_clicks(tmp_path / f"a.{kind}") for kind in ("csv", "jsonl", "parquet")]
    assert named(read[0][0]) == named(read[1][0]) == named(read[2][0])
    assert len({report.repeated_rows for _, report in read}) == 1


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.seq", "a.txt"])
def test_limit_reads_only_the_first_rows(write: Write, name: str) -> None:
    content = {
        "a.csv": "user,item\n1,1\n1,2\n1,3\n",
        "a.jsonl": 3 * '{"user": 1, "item": 1}\n',
        "a.seq": MSNBC + "1\n1\n1\n",
        "a.txt": "1 1\n1 2\n1 3\n",
    }[name]
    histories, report = read_clicks(write(name, content), limit=2)
    assert report.rows == len(histories.items) == 2


@pytest.mark.parametrize("name", ["a.csv", "a.seq", "a.txt"])
def test_a_file_with_nothing_usable_is_refused_with_the_first_reason(
    write: Write, name: str
) -> None:
    header = "user,item\n" if name == "a.csv" else MSNBC if name == "a.seq" else ""
    with pytest.raises(DataError, match=rf"{name}: nothing usable in 1 rows .* line \d: "):
        read_clicks(write(name, header + "rubbish\n"), "sasrec" if name == "a.txt" else None)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.seq", "a.txt"])
def test_an_empty_file_is_called_empty(write: Write, name: str) -> None:
    with pytest.raises((DataError, TableError), match=rf"{name}: the file is empty"):
        read_clicks(write(name, ""))


def test_a_csv_file_of_blank_lines_is_called_empty(write: Write) -> None:
    with pytest.raises(TableError, match="the file is empty"):
        read_clicks(write("a.csv", "\n\n"))


def test_blank_lines_before_the_csv_header_are_skipped(write: Write) -> None:
    histories, _ = read_clicks(write("a.csv", "\nuser,item\nann,a\n"))
    assert named(histories) == {"ann": ["a"]}


def test_an_empty_folder_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no files in this folder"):
        read_clicks(tmp_path)


def test_an_unknown_format_names_the_known_ones(write: Write) -> None:
    with pytest.raises(DataError, match="known are msnbc, sasrec, wikispeedia"):
        read_clicks(write("a.txt", "once upon a time\n"), "story")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"nowhere\.csv: no such file"):
        read_clicks(tmp_path / "nowhere.csv")


def test_a_damaged_parquet_file_is_named(write: Write) -> None:
    with pytest.raises(TableError, match=r"a\.parquet: not a Parquet file"):
        read_clicks(write("a.parquet", "rubbish"))


def test_a_format_is_recognised_without_its_ending(write: Write) -> None:
    assert detect_format(write("a", "user,item\n1,2\n")) is None
    assert detect_format(write("b", MSNBC + "1\n")) == "msnbc"
    assert detect_format(write("c", "1 2\n1 3\n")) == "sasrec"
    assert detect_format(write("d", "1 2\n1 3 4\n5 6 7\n")) is None


def test_a_public_format_may_be_packed(write: Write) -> None:
    histories, report = read_clicks(write("a.gz", gzip.compress(b"1 10\n1 9\n")))
    assert (report.format, named(histories)) == ("sasrec", {1: [10, 9]})


def test_a_table_of_numbers_is_not_taken_for_wikispeedia(write: Write) -> None:
    assert detect_format(write("a", "7\t100\t5\t978300760\t2\t3\n")) is None


@pytest.mark.parametrize("rows", [40, 3_000])
def test_a_broken_quote_costs_one_row(write: Write, rows: int) -> None:
    lines = [f"{n},item{n}" for n in range(rows)]
    lines[rows // 2] = '5,"kunde-quote,item'
    histories, report = read_clicks(write("a.csv", "\n".join(["user,item", *lines])))
    assert len(histories) == rows - 1
    assert [broken.line for broken in report.broken] == [rows // 2 + 2]


def test_clicks_at_the_same_time_are_counted(write: Write) -> None:
    rows = "user,item,time\nann,b,2\nann,c,2\nann,a,1\nbob,a,2\n"
    assert read_clicks(write("a.csv", rows))[1].tied_clicks == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "users", "items", "clicks", "rows"),
    [
        ("msnbc990928.seq", 989_818, 17, 4_698_794, 989_818),
        ("ml-1m.txt", 6_040, 3_416, 999_611, 999_611),
        ("wikispeedia-paths-unfinished.tsv", 11_485, 4_061, 129_295, 24_875),
        # 138,932 clicks in the histories and 7,542 in the impressions.
        ("mind-behaviors-sample.tsv", 4_637, 17_628, 146_474, 5_000),
    ],
)
def test_the_real_sets_have_their_known_sizes(
    name: str, users: int, items: int, clicks: int, rows: int
) -> None:
    histories, report = read_clicks(real(name))
    assert (len(histories), histories.n_items, len(histories.items)) == (users, items, clicks)
    assert (report.rows, report.broken_rows) == (rows, 0)


def test_the_first_hundred_thousand_visitors_of_msnbc_are_read() -> None:
    histories, _ = read_clicks(real("msnbc990928.seq"), limit=100_000)
    assert len(histories) == 100_000
    assert [histories.item_ids[i] for i in histories[2]][:3] == ["tech", "news", "news"]
