"""Whole-file scoring against a transport that answers, and refuses, as the service does."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persona.client import ServerError, UnexpectedAnswer
from persona.contract import InvalidRequest
from persona.results import ModelChanged
from persona.scoring import (
    FileError,
    RunChanged,
    ScoreReport,
    ScoringError,
    ServiceScorer,
    TooManyRejects,
    score_file,
)
from persona.tables import NoSuchColumn, TableError, TableOptions
from tests.scoring.small_tables import (
    content_of,
    read_jsonl,
    read_output,
    rejects_of,
    write_jsonl,
    write_parquet,
    write_table,
)

LIMIT = 6  # clicks a history
WIDTH = 3
CARD = {"name": "fake", "version": "1", "width": WIDTH, "checksum": "abc"}

Handler = Callable[[httpx.Request], httpx.Response]


def service(request: httpx.Request) -> httpx.Response:
    """Refuses what the service refuses; an embedding starts with the number of clicks."""
    if request.url.path == "/v1/models":
        return httpx.Response(200, json={"models": [CARD]})
    histories = json.loads(request.content)["histories"]
    for index, history in enumerate(histories):
        if len(history) > LIMIT:
            message = f"history {index} has {len(history)} items, limit {LIMIT}"
            error = {"code": "invalid_request", "message": message, "path": ["histories", index]}
            return httpx.Response(422, json={"error": error})
    return httpx.Response(200, json=answer(histories))


def answer(histories: list[list[Any]]) -> dict[str, Any]:
    users = [
        {"id": None, "used": len(h), "truncated": 0, "unknown": 0, "embedding": embedding(len(h))}
        for h in histories
    ]
    return {"model": "fake", "version": "1", "users": users}


def embedding(clicks: int) -> str:
    return base64.b64encode(np.array([clicks, 0.1, -2], "<f4").tobytes()).decode()


def encodes(handle: Callable[[list[list[Any]]], httpx.Response | None]) -> Handler:
    """The service, with other answers to some requests for embeddings."""

    def other(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models" or "version" not in json.loads(request.content):
            return service(request)  # at the start, when no version is known
        return handle(json.loads(request.content)["histories"]) or service(request)

    return other


def score(source: Path, target: Path, handler: Handler = service, **options: Any) -> ScoreReport:
    scorer = ServiceScorer("http://service", transport=httpx.MockTransport(handler))
    return score_file(source, target, scorer, **options)


GOOD_LINES = st.lists(st.text(max_size=3) | st.integers(0, 9), max_size=LIMIT).map(
    lambda history: json.dumps({"id": 1, "history": history})
)
BAD_LINES = st.sampled_from(
    [
        '{"history": null}',
        '{"history": ["a", 1.5]}',
        '{"history": [true]}',
        '{"history": [[]]}',
        '{"id": [], "history": []}',
        '{"history": ["a"',
        "[]",
        "nonsense",
        json.dumps({"history": ["a"] * (LIMIT + 1)}),
    ]
)
LINES = st.lists(st.tuples(st.booleans(), GOOD_LINES, BAD_LINES), max_size=30)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=LINES, part_rows=st.integers(5, 20))
def test_every_row_is_scored_or_rejected_exactly_once_and_in_order(
    tmp_path: Path, lines: list[tuple[bool, str, str]], part_rows: int
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    # The first line has the column, so that the file counts as a table of histories.
    texts = ['{"history": []}', *(good if is_good else bad for is_good, good, bad in lines)]
    source.write_text("\n".join(texts))
    report = score(source, target, part_rows=part_rows)
    scored = [row["row"] for row in read_jsonl(target)]
    rejected = [row["row"] for row in rejects_of(target)]
    expected = [0, *(number for number, (is_good, *_) in enumerate(lines, 1) if is_good)]
    assert scored == expected
    assert rejected == sorted(set(range(len(texts))) - set(expected))
    assert (report.counts.scored, report.counts.rejected) == (len(scored), len(rejected))


@pytest.mark.parametrize("source_suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("target_suffix", [".parquet", ".csv", ".jsonl", ".npy"])
def test_every_format_is_read_and_written(
    tmp_path: Path, source_suffix: str, target_suffix: str
) -> None:
    histories, ids = [["a", "b"], [], ["c"]], ["ann", "bob", "cy"]
    source, target = tmp_path / f"in{source_suffix}", tmp_path / f"out{target_suffix}"
    score(write_table(source, ids, histories), target, part_rows=2)
    rows = read_output(target)
    assert [(row["row"], row["id"], int(row["used"])) for row in rows] == [
        (0, "ann", 2),
        (1, "bob", 0),
        (2, "cy", 1),
    ]
    expected = np.array([[2, 0.1, -2], [0, 0.1, -2], [1, 0.1, -2]], np.float32)
    np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], "f4"), expected)


def test_parquet_has_fixed_size_lists_typed_ids_and_the_model(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", [["a"]], ids=[2**40])
    score(source, tmp_path / "out.parquet")
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert schema.field("embedding").type == pa.list_(pa.float32(), WIDTH)
    assert schema.field("id").type == pa.int64()
    expected = {b"persona.model": b"fake", b"persona.version": b"1", b"persona.checksum": b"abc"}
    assert expected.items() <= schema.metadata.items()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".npy"])
def test_a_file_beside_the_output_says_which_model_made_it(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    score(write_parquet(tmp_path / "in.parquet", [["a"], None]), target)
    run = json.loads((tmp_path / f"out{suffix}.run.json").read_text())
    assert run["model"].items() >= CARD.items()
    assert (run["counts"]["scored"], run["counts"]["rejected"]) == (1, 1)


def test_numbers_can_be_float16(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", [["a"]])
    score(source, tmp_path / "out.parquet", float16=True)
    score(source, tmp_path / "out.npy", float16=True)
    field = pq.read_schema(tmp_path / "out.parquet").field("embedding")
    assert field.type == pa.list_(pa.float16(), WIDTH)
    assert np.load(tmp_path / "out.npy").dtype == np.float16


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_columns_pass_through(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "in.parquet"
    table = {"history": [["a"], None, ["b"]], "country": ["ch", "de", "fr"], "age": [1, 2, 3]}
    pq.write_table(pa.table(table), source)
    options = TableOptions(columns=("country", "age"))
    score(source, tmp_path / f"out{suffix}", columns=options, part_rows=2)
    rows = read_output(tmp_path / f"out{suffix}")
    assert [(row["country"], row["age"]) for row in rows] == [("ch", 1), ("fr", 3)]


def test_times_in_nanoseconds_pass_through(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    times = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    pq.write_table(pa.table({"history": [["a"]], "seen": times}), source)
    score(source, tmp_path / "out.jsonl", columns=TableOptions(columns=("seen",)))
    (row,) = read_output(tmp_path / "out.jsonl")
    assert row["seen"] == "2023-11-14 22:13:20.123456789"


def test_a_folder_gets_a_file_a_part(tmp_path: Path) -> None:
    source, target = write_parquet(tmp_path / "in.parquet", [["a"]] * 5), tmp_path / "out"
    target.mkdir()
    score(source, target, part_rows=2)
    names = sorted(path.name for path in target.iterdir())
    assert names == [f"part-{number:05}.parquet" for number in range(3)]
    assert pq.read_table(target)["row"].to_pylist() == list(range(5))


def test_a_table_of_clicks_is_scored_by_user(tmp_path: Path) -> None:
    source = tmp_path / "clicks.csv"
    source.write_text("user,item,time\nbob,tv,2\nann,news,1\nbob,news,1\n")
    score(source, tmp_path / "out.jsonl")
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [(row["id"], row["used"]) for row in rows] == [("ann", 1), ("bob", 2)]


def test_a_refused_history_is_rejected_with_the_services_reason(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", [["a"], ["b"] * 99, ["c"]], ["x", "y", "z"])
    score(source, tmp_path / "out.jsonl")
    (reject,) = rejects_of(tmp_path / "out.jsonl")
    assert reject["reason"] == "the history has 99 items, limit 6"
    assert (reject["row"], reject["line"], reject["user"]) == (1, None, "y")
    assert len(reject["raw"]) <= 200


def test_each_refused_row_costs_one_request(tmp_path: Path) -> None:
    sizes = []

    def counting(histories: list[Any]) -> None:
        sizes.append(len(histories))

    histories = [["a"] * (9 if number % 2 else 1) for number in range(512)]
    source = write_parquet(tmp_path / "in.parquet", histories)
    assert score(source, tmp_path / "out.jsonl", encodes(counting)).counts.rejected == 256
    assert len(sizes) == 256 + 1


def test_an_output_without_rows_still_has_its_columns(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", [None])
    report = score(source, tmp_path / "out.parquet")
    assert (report.counts.rows, report.counts.scored) == (1, 0)
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert schema.field("embedding").type == pa.list_(pa.float32(), WIDTH)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".npy"])
def test_a_table_without_rows_is_scored(tmp_path: Path, suffix: str) -> None:
    source = write_parquet(tmp_path / "in.parquet", [])
    assert score(source, tmp_path / f"out{suffix}").counts.rows == 0
    assert read_output(tmp_path / f"out{suffix}") == []


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", [[]])
    with pytest.raises(NoSuchColumn, match="clicks"):
        score(source, tmp_path / "out.jsonl", columns=TableOptions(history="clicks"))


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"absent\.jsonl"):
        score(tmp_path / "absent.jsonl", tmp_path / "out.parquet")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("in.parquet", "both an input and an output"),
        ("out.xlsx", r"must end with one of \.parquet, \.jsonl, \.csv, \.npy"),
        ("nowhere/out.csv", "there is no folder"),
        ("full/", "the folder is not empty"),
    ],
)
def test_an_output_that_cannot_be_is_refused(tmp_path: Path, target: str, message: str) -> None:
    source = write_parquet(tmp_path / "in.parquet", [[]])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(FileError, match=message):
        score_file(source, f"{tmp_path}/{target}", ServiceScorer("http://127.0.0.1:9"))


def failing_at(clicks: int, with_answer: httpx.Response) -> Handler:
    """A service that gives one answer to all requests with a history of that length."""
    return encodes(lambda histories: with_answer if clicks in map(len, histories) else None)


def long_then_short(path: Path, rows: int = 10) -> Path:
    """A table whose rows have 0 to 4 clicks, two rows of each number in turn."""
    return write_jsonl(path, [{"history": ["a"] * (row // 2 % 5)} for row in range(rows)])


def test_a_failure_keeps_the_old_output_and_the_finished_parts(tmp_path: Path) -> None:
    source, target = long_then_short(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    target.write_text("the old output")
    with pytest.raises(ServerError):
        score(source, target, failing_at(4, httpx.Response(500)), part_rows=2)
    assert target.read_text() == "the old output"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.jsonl",
        "out.jsonl",
        "out.jsonl.work",
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".npy"])
def test_a_run_that_goes_on_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    source, target = long_then_short(tmp_path / "in.jsonl", 20), tmp_path / f"out{suffix}"
    score(source, target, part_rows=2)
    whole = content_of(target)
    with pytest.raises(ServerError):
        score(source, target, failing_at(3, httpx.Response(500)), part_rows=2)
    report = score(source, target, part_rows=2)
    assert 0 < report.resumed_rows < 20
    assert content_of(target) == whole


def test_a_run_that_goes_on_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    source, target, asked = long_then_short(tmp_path / "in.jsonl"), tmp_path / "out.csv", []
    with pytest.raises(ServerError):
        score(source, target, failing_at(4, httpx.Response(500)), part_rows=2)
    done = len(list((tmp_path / "out.csv.work").glob("part-*")))
    score(source, target, encodes(lambda histories: asked.append(len(histories))), part_rows=2)
    assert sum(asked) == 10 - 2 * done


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unknown_items": "drop"}, "options unknown_items: was token, is drop"),
        ({"float16": True}, "options float16: was False, is True"),
        ({"columns": TableOptions(user="history")}, "options user: was None, is history"),
    ],
)
def test_another_option_does_not_go_on(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    source, target = long_then_short(tmp_path / "in.jsonl"), tmp_path / "out.csv"
    with pytest.raises(ServerError):
        score(source, target, failing_at(4, httpx.Response(500)), part_rows=2)
    with pytest.raises(RunChanged, match=message):
        score(source, target, part_rows=2, **change)
    assert score(source, target, part_rows=2, restart=True, **change).resumed_rows == 0


def test_another_input_does_not_go_on(tmp_path: Path) -> None:
    source, target = long_then_short(tmp_path / "in.jsonl"), tmp_path / "out.csv"
    with pytest.raises(ServerError):
        score(source, target, failing_at(4, httpx.Response(500)), part_rows=2)
    long_then_short(source, 12)
    with pytest.raises(RunChanged, match=r"in\.jsonl: was \d+ bytes, changed at"):
        score(source, target, part_rows=2)


def test_another_model_does_not_go_on(tmp_path: Path) -> None:
    source, target = long_then_short(tmp_path / "in.jsonl"), tmp_path / "out.csv"
    with pytest.raises(ServerError):
        score(source, target, failing_at(4, httpx.Response(500)), part_rows=2)

    def newer(request: httpx.Request) -> httpx.Response:
        models = [CARD | {"version": "2", "checksum": "def"}, CARD]
        return httpx.Response(200, json={"models": models} | answer([[]]) | {"version": "2"})

    with pytest.raises(RunChanged, match="model version: was 1, is 2"):
        score(source, target, newer, part_rows=2)


def test_a_version_that_changes_on_the_way_stops_the_scoring(tmp_path: Path) -> None:
    newer = httpx.Response(200, json=answer([["a"] * 3] * 2) | {"version": "2"})
    source = long_then_short(tmp_path / "in.jsonl")
    with pytest.raises(ModelChanged, match="version 1 to fake version 2"):
        score(source, tmp_path / "out.jsonl", failing_at(3, newer), part_rows=2)


@pytest.mark.parametrize(
    ("numbers", "error"), [([1, np.nan, 1], UnexpectedAnswer), ([1] * 4, ModelChanged)]
)
def test_what_is_no_embedding_of_the_model_stops_the_scoring(
    tmp_path: Path, numbers: list[float], error: type[Exception]
) -> None:
    wrong = answer([["a"] * 3] * 2)
    for user in wrong["users"]:
        user["embedding"] = base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()
    source = long_then_short(tmp_path / "in.jsonl")
    with pytest.raises(error):
        score(
            source,
            tmp_path / "out.jsonl",
            failing_at(3, httpx.Response(200, json=wrong)),
            part_rows=2,
        )


@pytest.mark.parametrize("status", [413, 504])
def test_requests_that_are_too_much_are_sent_again_in_halves(tmp_path: Path, status: int) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"history": ["a"]}] * 9)
    too_much = encodes(lambda found: httpx.Response(status) if len(found) > 2 else None)
    report = score(source, tmp_path / "out.jsonl", too_much)
    assert (report.counts.scored, report.counts.rejected) == (9, 0)


def test_a_row_that_is_too_large_alone_is_rejected(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"history": ["a"]}, {"history": ["b"] * 5}])
    error = {"error": {"code": "too_large", "message": "too many bytes", "path": []}}
    score(source, tmp_path / "out.jsonl", failing_at(5, httpx.Response(413, json=error)))
    (reject,) = rejects_of(tmp_path / "out.jsonl")
    assert (reject["row"], reject["reason"]) == (1, "too many bytes")


def test_a_refusal_that_is_not_about_one_row_ends_the_scoring(tmp_path: Path) -> None:
    error = {"error": {"code": "invalid_request", "message": "a column is missing", "path": []}}
    source = write_jsonl(tmp_path / "in.jsonl", [{"history": ["a"]}])
    with pytest.raises(InvalidRequest, match="a column is missing"):
        score(source, tmp_path / "out.jsonl", failing_at(1, httpx.Response(422, json=error)))


@pytest.mark.parametrize(("allowed", "more"), [("2", "4"), ("30%", "50%")])
def test_too_many_rejects_stop_the_run_which_goes_on_when_more_are_allowed(
    tmp_path: Path, allowed: str, more: str
) -> None:
    rows = [{"history": ["a"] * (9 if row % 2 else 1)} for row in range(8)]
    source, target = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    with pytest.raises(TooManyRejects, match=r"rows are rejected, more than allowed"):
        score(source, target, part_rows=2, max_rejects=allowed)
    report = score(source, target, part_rows=2, max_rejects=more)
    assert (report.counts.rejected, report.resumed_rows > 0) == (4, True)


@pytest.mark.parametrize("text", ["many", "-1", "nan", "%"])
def test_a_limit_of_rejects_is_a_number_or_a_share(tmp_path: Path, text: str) -> None:
    with pytest.raises(ScoringError, match="give a number such as 100, or 1%"):
        score(tmp_path / "in.jsonl", tmp_path / "out.csv", max_rejects=text)


def test_progress_ends_with_all_rows_and_the_whole_file(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"history": []}] * 10)
    reported: list[tuple[int, float]] = []
    score(
        source,
        tmp_path / "out.jsonl",
        part_rows=3,
        progress=lambda rows, part: reported.append((rows, part)),
    )
    assert reported[-1] == (10, 1.0)
    assert reported == sorted(reported)
