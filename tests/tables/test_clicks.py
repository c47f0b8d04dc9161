"""Tables with one click a row."""

import bz2
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persona.tables import NoSuchColumn, Reject, TableError, TableOptions, checksum, open_table
from tests.tables.reading import read, read_with

CLICKS = "user,item,time\nann,b,2\nbob,x,5\nann,c,2\nann,a,1\n"
HISTORIES = [("ann", ["a", "b", "c"]), ("bob", ["x"])]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("delimiter", [";", "::", "\t", "|", ","])
def test_a_delimiter_is_detected(tmp_path: Path, delimiter: str) -> None:
    path = write(tmp_path / "a.csv", CLICKS.replace(",", delimiter))
    assert read(path) == (HISTORIES, [])


def test_an_unusual_delimiter_is_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", CLICKS.replace(",", "^"))
    assert read(path, delimiter="^") == (HISTORIES, [])


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        bz2.compress,
        lambda data: pa.compress(data, codec="zstd", asbytes=True),
        lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
    ],
    ids=["gzip", "bz2", "zstd", "two gzip members"],
)
def test_packed_text_is_known_by_its_first_bytes(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    assert read(write(tmp_path / "clicks", pack(CLICKS.encode()))) == (HISTORIES, [])


def test_windows_lines_and_a_byte_order_mark_are_no_part_of_ids(tmp_path: Path) -> None:
    text = "\ufeff" + CLICKS.replace("\n", "\r\n")
    assert read(write(tmp_path / "a.csv", text)) == (HISTORIES, [])


def test_columns_without_names_have_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", CLICKS.partition("\n")[2])
    assert read(path, user="1", item="2", time="3") == (HISTORIES, [])


def test_a_header_is_one_if_it_has_the_columns_that_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "who,2024\nann,a\n")
    assert read(path, user="who", item="2024")[0] == [("ann", ["a"])]


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoSuchColumn, match=r"a\.csv: more than one column is named 'item'"):
        read(write(tmp_path / "a.csv", "user,item,item\n1,2,3\n"))


def test_a_header_that_looks_like_values_is_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "1,2\n7,8\n")
    assert read(path, user="1", item="2", header=True)[0] == [(7, [8])]
    assert read(path, user="1", item="2")[0] == [(1, [2]), (7, [8])]


def test_integers_stay_integers_and_007_stays_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "user,item\n9223372036854775807,007\n-1,7\n")
    assert read(path)[0] == [(-1, ["7"]), (9223372036854775807, ["007"])]


def test_ids_of_json_may_be_of_both_kinds(tmp_path: Path) -> None:
    rows = [("ü\n", "a"), ("ü\n", 2), (3, 2**63)]
    lines = [json.dumps({"user": user, "item": item}) for user, item in rows]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    assert sorted(read(path)[0], key=str) == [("ü\n", ["a", 2]), (3, [2**63])]
    with open_table(path) as table:
        assert table.id_type == pa.string()


def test_quotes_hold_delimiters_and_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'user,item\n"a,""b""",x\nann,7" mix\n"",y\n')
    rows, rejects = read(path)
    assert rows == [('a,"b"', ["x"]), ("ann", ['7" mix'])]
    assert [(reject.line, reject.reason) for reject in rejects] == [(4, "no user")]


def test_a_reject_says_where_and_who_and_why(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "user,item,time\nann,a,1\n\nbob,b,noon\n")
    reason = "time 'noon' is neither a number nor ISO 8601"
    assert read(path)[1] == [Reject(1, 4, str(path), "bob", reason, "bob,b,noon")]


def test_rejects_of_json_name_the_user_as_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"user": "ann", "item": 1.5}\n{"user": "ann", "item": 1}\n')
    (reject,) = read(path)[1]
    assert (reject.user, reject.reason) == ("ann", "item 1.5 is neither a string nor an integer")


def test_where_keeps_the_rows_of_an_expression(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "user,item,n\nann,a,10\nann,b,9\nann,c,x\n")
    assert read(path, where="item <> 'a' AND n <> 'x'")[0] == [("ann", ["b"])]


def test_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "user,item,n\nann,a,10\nann,b,9.5\n")
    assert read(path, where="n > 9.9")[0] == [("ann", ["a"])]


@pytest.mark.parametrize(
    "where",
    [
        "true; DROP TABLE clicks",
        "true) UNION SELECT (1",
        "(SELECT count(*) FROM read_text('/etc/hostname')) > 0",
        "(SELECT count(*) FROM glob('/*')) > 0",
        "nothing = 1",
        "item +",
    ],
)
def test_where_is_an_expression_that_opens_no_file(tmp_path: Path, where: str) -> None:
    with pytest.raises(TableError):
        read(write(tmp_path / "a.csv", CLICKS), where=where)


def test_a_name_is_no_sql(tmp_path: Path) -> None:
    name = "it\"em') --"
    path = write(tmp_path / "a.jsonl", json.dumps({"user": 1, name: "a", "~x/y": 5}))
    assert read(path, item=name, time="~x/y", where="user = 1")[0] == [(1, ["a"])]


def test_low_ratings_do_not_count_and_unreadable_ones_are_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "user,item,rating\nann,a,4.5\nann,b,3\nann,c,good\nann,d,4\n")
    rows, rejects = read(path, min_rating=4)
    assert rows == [("ann", ["a", "d"])]
    assert [reject.reason for reject in rejects] == ["rating 'good' is not a number"]


def test_files_of_a_glob_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        write(tmp_path / f"{name}.csv", f"user,item\nann,{name}\nann\n")
    rows, rejects = read(tmp_path / "[ab].csv")
    assert rows == [("ann", ["a", "b"])]
    assert [(Path(reject.file).name, reject.line) for reject in rejects] == [
        ("a.csv", 3),
        ("b.csv", 3),
    ]


def test_a_url_names_a_file(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", CLICKS)
    assert read((tmp_path / "a.csv").as_uri()) == (HISTORIES, [])
    assert read(f"{tmp_path.as_uri()}/*.csv") == (HISTORIES, [])


def test_files_of_other_columns_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", CLICKS)
    write(tmp_path / "b.csv", "user,item\nann,a\n")
    with pytest.raises(TableError, match=r"b\.csv: another header than .*a\.csv"):
        read(tmp_path)


def test_a_missing_column_comes_with_a_proposal(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "visitorid,itemid\n1,2\n")
    with pytest.raises(NoSuchColumn, match="perhaps: --user visitorid --item itemid"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(range(256)) * 9, "neither text in UTF-8 nor Parquet"),
        (CLICKS.encode("utf-16"), "UTF-16; save it as UTF-8"),
        (gzip.compress(CLICKS.encode())[:-9], "a.csv: "),
        (b'[\n {"user": 1}\n]', "one JSON array"),
        (b"", "the file is empty"),
    ],
    ids=["bytes", "UTF-16", "cut gzip", "array", "empty"],
)
def test_a_file_of_another_kind_is_refused_in_words(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(TableError, match=message) as error:
        read(write(tmp_path / "a.csv", content))
    assert str(error.value).isprintable()


def test_the_same_table_gives_the_same_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", CLICKS + "ann,,1\n")
    with open_table(path) as table:
        assert repr(list(table)).partition("passed")[0] == repr(list(table)).partition("passed")[0]
        assert (table.rows, table.fraction_read) == (5, 1.0)


def test_histories_that_span_batches_stay_whole(tmp_path: Path) -> None:
    rows = 300_000
    columns = {"user": [n % 3 for n in range(rows)], "item": list(range(rows))}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    histories, _ = read(tmp_path / "a.parquet")
    assert histories == [(user, list(range(user, rows, 3))) for user in range(3)]


def test_a_table_larger_than_its_memory_is_sorted_on_disk(tmp_path: Path) -> None:
    rows = 1_000_000
    columns = {"user": [n * 7_919 % rows for n in range(rows)], "item": [1] * rows}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with open_table(tmp_path / "a.parquet", memory="50MB", scratch=tmp_path) as table:
        users = [user for part in table if not isinstance(part, Reject) for user in part.ids]
    assert users == sorted(set(columns["user"]))
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_limit_reads_the_first_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", CLICKS)
    assert read_with(path, TableOptions(), limit=2)[0] == [("ann", ["b"]), ("bob", ["x"])]


def test_a_checksum_tells_inputs_apart(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", CLICKS)
    one = checksum(tmp_path)
    write(tmp_path / "b.csv", CLICKS)
    assert one == checksum(tmp_path / "a.csv") != checksum(tmp_path)
