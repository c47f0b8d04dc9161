"""Whole-file scoring against a transport that answers, and refuses, as the service does."""

import base64
import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stamina
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persona.client import Client, ModelChanged, ServerError
from persona.contract import DeadlineExceeded, InvalidRequest, ItemId, RequestTooLarge
from persona.results import Encoded, User
from persona.scoring import Columns, FileError, NoHistories, ScoreReport, score_file

LIMIT = 6  # clicks a history
WIDTH = 3


def service(request: httpx.Request) -> httpx.Response:
    """Refuses what the service refuses; an embedding starts with the number of clicks."""
    histories = json.loads(request.content)["histories"]
    for index, history in enumerate(histories):
        if len(history) > LIMIT:
            message = f"history {index} has {len(history)} items, limit {LIMIT}"
            error = {"code": "invalid_request", "message": message, "path": ["histories", index]}
            return httpx.Response(422, json={"error": error})
    users = [
        {"id": None, "used": len(h), "truncated": 0, "unknown": 0, "embedding": embedding(len(h))}
        for h in histories
    ]
    return httpx.Response(200, json={"model": "fake", "version": "1", "users": users})


def embedding(clicks: int) -> str:
    return base64.b64encode(np.array([clicks, 0.1, -2], "<f4").tobytes()).decode()


def score(source: Path, target: Path, handler: Any = service, **options: Any) -> ScoreReport:
    with Client("http://service", transport=httpx.MockTransport(handler)) as client:
        return score_file(source, target, rejects_of(target), client, **options)


def rejects_of(target: Path) -> Path:
    return target.with_suffix(".rejects.jsonl")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def write_parquet(path: Path, histories: list[Any], ids: list[Any] | None = None) -> Path:
    table = {"history": pa.array(histories, pa.list_(pa.string()))}
    pq.write_table(pa.table(table | ({} if ids is None else {"id": ids})), path)
    return path


GOOD_LINES = st.lists(st.text(max_size=3) | st.integers(0, 9), max_size=LIMIT).map(
    lambda history: json.dumps({"id": 1, "history": history})
)
BAD_LINES = st.sampled_from(
    [
        '{"history": null}',
        '{"history": "a"}',
        '{"history": ["a", 1.5]}',
        '{"history": [true]}',
        '{"history": [[]]}',
        '{"id": [], "history": []}',
        '{"history": ["a"',
        "[]",
        "nonsense",
        "\udcff",
        json.dumps({"history": ["a"] * (LIMIT + 1)}),
    ]
)
LINES = st.lists(st.tuples(st.booleans(), GOOD_LINES, BAD_LINES), max_size=60)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=LINES, rows_per_batch=st.integers(1, 20))
def test_every_row_is_scored_or_rejected_exactly_once_and_in_order(
    tmp_path: Path, lines: list[tuple[bool, str, str]], rows_per_batch: int
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    # The first line has the column, so that the file counts as a table of histories.
    texts = ['{"history": []}', *(good if is_good else bad for is_good, good, bad in lines)]
    source.write_bytes("\n".join(texts).encode(errors="surrogateescape"))
    report = score(source, target, rows_per_batch=rows_per_batch)
    scored = [row["row"] for row in read_jsonl(target)]
    rejected = [row["row"] for row in read_jsonl(rejects_of(target))]
    expected = [0, *(number for number, (is_good, *_) in enumerate(lines, 1) if is_good)]
    assert scored == expected
    assert rejected == sorted(set(range(len(texts))) - set(expected))
    assert (report.scored, report.rejected) == (len(scored), len(rejected))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(histories=st.lists(st.none() | st.lists(st.none() | st.just("a"), max_size=LIMIT + 2)))
def test_parquet_rows_are_neither_lost_nor_doubled(tmp_path: Path, histories: list[Any]) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    score(write_parquet(source, histories), target, rows_per_batch=3)
    rejected = [row["row"] for row in read_jsonl(rejects_of(target))]
    scored = pq.read_table(target)["row"].to_pylist()
    assert sorted(scored + rejected) == list(range(len(histories)))
    good = [i for i, h in enumerate(histories) if h is not None and None not in h]
    assert scored == [i for i in good if len(histories[i]) <= LIMIT]


@pytest.mark.parametrize("source_suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("target_suffix", [".parquet", ".csv", ".jsonl"])
def test_every_format_is_read_and_written(
    tmp_path: Path, source_suffix: str, target_suffix: str
) -> None:
    histories, ids = [["a", "b"], [], ["c"]], ["ann", "bob", "cy"]
    source, target = tmp_path / f"in{source_suffix}", tmp_path / f"out{target_suffix}"
    _write_table(source, ids, histories)
    score(source, target)
    assert _read_table(target) == [
        (0, "ann", [2, np.float32(0.1), -2], 2),
        (1, "bob", [0, np.float32(0.1), -2], 0),
        (2, "cy", [1, np.float32(0.1), -2], 1),
    ]


def _write_table(path: Path, ids: list[str], histories: list[list[str]]) -> None:
    if path.suffix == ".parquet":
        write_parquet(path, histories, ids)
    elif path.suffix == ".jsonl":
        pairs = zip(ids, histories, strict=True)
        write_jsonl(path, [{"id": one, "history": history} for one, history in pairs])
    else:
        with path.open("w", newline="") as file:
            rows = zip(ids, map(json.dumps, histories), strict=True)
            csv.writer(file).writerows([("id", "history"), *rows])


def _read_table(path: Path) -> list[tuple[int, str, list[np.float32], int]]:
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    elif path.suffix == ".jsonl":
        rows = read_jsonl(path)
    else:
        with path.open(newline="") as file:
            rows = [
                row | {"embedding": json.loads(row["embedding"])} for row in csv.DictReader(file)
            ]
    return [
        (int(row["row"]), row["id"], [np.float32(x) for x in row["embedding"]], int(row["used"]))
        for row in rows
    ]


def test_parquet_embeddings_are_fixed_size_lists_and_ids_keep_their_type(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", [["a"]], ids=[2**40])
    score(source, tmp_path / "out.parquet")
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert schema.field("embedding").type == pa.list_(pa.float32(), WIDTH)
    assert schema.field("id").type == pa.int64()


def test_broken_csv_lines_are_rejected_with_their_line_and_spoil_no_other_row(
    tmp_path: Path,
) -> None:
    source = tmp_path / "in.csv"
    good = '1,"[""a""]"'
    lines = ["id,history", good, '2,"[""a""]', good, "", "4,[],more", "5,[1", "6,", good]
    source.write_text("\r\n".join(lines))
    report = score(source, tmp_path / "out.jsonl")
    rejects = {row["line"]: row["reason"] for row in read_jsonl(tmp_path / "out.rejects.jsonl")}
    assert (report.rows, report.scored) == (7, 3)
    assert rejects[3].startswith("broken CSV")
    assert rejects[6] == "3 fields, the header has 2"
    assert rejects[7].startswith("broken JSON")
    assert rejects[8] == "the history is missing"


def test_a_refused_history_is_rejected_with_the_services_reason(tmp_path: Path) -> None:
    histories = [["a"], ["b"] * 99, ["c"]]
    score(write_parquet(tmp_path / "in.parquet", histories), tmp_path / "out.jsonl")
    (reject,) = read_jsonl(tmp_path / "out.rejects.jsonl")
    assert reject["reason"] == "the history has 99 items, limit 6"
    assert (reject["row"], reject["line"]) == (1, None)
    assert len(reject["raw"]) <= 200


def test_refused_rows_cost_few_requests(tmp_path: Path) -> None:
    requests = []

    def counting(request: httpx.Request) -> httpx.Response:
        requests.append(len(json.loads(request.content)["histories"]))
        return service(request)

    source = write_parquet(tmp_path / "in.parquet", [["a"] * 9] * 256)
    score(source, tmp_path / "out.jsonl", counting)
    assert len(requests) <= 2 * 256
    assert sum(requests) < 256 * 10


def test_a_line_that_is_too_long_is_one_rejected_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persona.scoring.text_files.MAX_LINE_BYTES", 50)
    rows = [{"history": ["a"]}, {"history": ["a" * 500]}, {"history": []}]
    report = score(write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    (reject,) = read_jsonl(tmp_path / "out.rejects.jsonl")
    assert (report.scored, reject["line"]) == (2, 2)
    assert reject["reason"] == "the line has more than 50 bytes"


def test_text_that_is_not_utf8_in_parquet_rejects_its_row_only(tmp_path: Path) -> None:
    broken = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    lists = pa.ListArray.from_arrays([0, 1, 2, 3], broken)
    pq.write_table(pa.table({"history": lists}), tmp_path / "in.parquet")
    report = score(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert (report.scored, report.rejected) == (2, 1)


def test_an_output_without_rows_still_has_its_columns(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", [None])
    report = score(source, tmp_path / "out.parquet")
    assert (report.rows, report.scored) == (1, 0)
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert schema.field("embedding").type == pa.list_(pa.float32(), WIDTH)


def test_a_table_with_a_row_a_click_is_told_how_to_become_one_of_histories(tmp_path: Path) -> None:
    source = tmp_path / "clicks.csv"
    source.write_text("user,item,time\nann,news,1\n")
    with pytest.raises(NoHistories, match=r"persona data convert .*clicks\.csv .*users\.parquet"):
        score(source, tmp_path / "out.parquet")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_columns_may_have_other_names(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"in{suffix}"
    csv_text = 'visitor,clicks\nann,"[1]"\n'
    source.write_text(csv_text if suffix == ".csv" else '{"visitor": "ann", "clicks": [1]}\n')
    score(source, tmp_path / "out.jsonl", columns=Columns("clicks", "visitor"))
    assert read_jsonl(tmp_path / "out.jsonl")[0]["id"] == "ann"


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".xlsx"])
def test_a_file_that_is_not_what_its_name_says_is_an_error_with_its_name(
    tmp_path: Path, suffix: str
) -> None:
    source = tmp_path / f"in{suffix}"
    source.write_bytes(b"\x00\xff\xfe broken" if suffix != ".jsonl" else b'{"other": 1}')
    with pytest.raises(FileError, match=f"in{suffix}"):
        score(source, tmp_path / "out.parquet")


def test_a_missing_input_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"absent\.jsonl: No such file or directory"):
        score(tmp_path / "absent.jsonl", tmp_path / "out.parquet")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_folder_as_input_is_called_a_folder(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"in{suffix}"
    source.mkdir()
    with pytest.raises(FileError, match=f"in{suffix} is a folder"):
        score(source, tmp_path / "out.parquet")


def test_a_folder_as_output_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"history": []}])
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(FileError, match=r"out\.jsonl is a folder"):
        score(source, tmp_path / "out.jsonl", handler=lambda _: httpx.Response(500))


@pytest.mark.parametrize("text", ["", "\n\r\n"])
def test_a_csv_file_without_a_header_is_called_empty(tmp_path: Path, text: str) -> None:
    source = tmp_path / "in.csv"
    source.write_text(text)
    with pytest.raises(FileError, match=r"in\.csv is empty"):
        score(source, tmp_path / "out.parquet")


def test_an_empty_jsonl_file_has_no_rows(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [])
    assert score(source, tmp_path / "out.jsonl").rows == 0


def test_the_output_may_not_be_the_input(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"history": []}])
    with pytest.raises(FileError, match="must differ"):
        score(source, source)


def test_a_failure_on_the_way_leaves_the_old_output_and_no_other_file(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"history": ["a"] * (i % 5)} for i in range(90)])
    target = tmp_path / "out.jsonl"
    target.write_text("the old output")

    def failing(request: httpx.Request) -> httpx.Response:
        longest = max(map(len, json.loads(request.content)["histories"]))
        return httpx.Response(500, text="broken") if longest == 4 else service(request)

    with pytest.raises(ServerError):
        score(source, target, failing, rows_per_batch=2)
    assert target.read_text() == "the old output"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_version_that_changes_on_the_way_stops_the_scoring(tmp_path: Path) -> None:
    def changing(request: httpx.Request) -> httpx.Response:
        answer = json.loads(service(request).content)
        clicks = answer["users"][0]["used"]
        return httpx.Response(200, json=answer | {"version": "2" if clicks == 3 else "1"})

    source = write_jsonl(tmp_path / "in.jsonl", [{"history": ["a"] * n} for n in range(5)])
    with pytest.raises(ModelChanged, match="version 1 to fake version 2"):
        score(source, tmp_path / "out.jsonl", changing, rows_per_batch=1)


def test_requests_that_take_too_long_are_sent_again_in_halves(tmp_path: Path) -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        few = len(json.loads(request.content)["histories"]) <= 2
        return service(request) if few else httpx.Response(504)

    source = write_jsonl(tmp_path / "in.jsonl", [{"history": ["a"]}] * 8)
    with stamina.set_testing(True, attempts=1):
        assert score(source, tmp_path / "out.jsonl", slow).scored == 8


class FakeScorer:
    """Scores in process, and fails as `fail` says."""

    def __init__(self, fail: Callable[[Sequence[Sequence[ItemId]]], Exception | None]) -> None:
        self.fail = fail
        self.asked: list[dict[str, object]] = []

    def encode(self, histories: Sequence[Sequence[ItemId]], **options: object) -> Encoded:
        self.asked.append(options)
        if error := self.fail(histories):
            raise error
        users = [User(None, len(history), 0, 0) for history in histories]
        return Encoded("fake", "1", np.zeros((len(users), WIDTH), np.float32), users)


def test_anything_with_encode_is_a_scorer(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"history": ["a"]}] * 3)
    scorer = FakeScorer(lambda _: None)
    options: Any = {"model": "news", "version": "7", "unknown_items": "drop"}
    report = score_file(
        source, tmp_path / "out.jsonl", tmp_path / "rejects.jsonl", scorer, **options
    )
    assert report.scored == 3
    assert scorer.asked == [options] * 2


@pytest.mark.parametrize("error", [RequestTooLarge("large"), DeadlineExceeded("slow")])
def test_a_batch_that_is_too_much_is_halved(tmp_path: Path, error: Exception) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"history": ["a"]}] * 9)
    scorer = FakeScorer(lambda histories: error if len(histories) > 2 else None)
    report = score_file(source, tmp_path / "out.jsonl", tmp_path / "rejects.jsonl", scorer)
    assert (report.scored, report.rejected) == (9, 0)


def test_one_row_that_is_too_large_is_rejected(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"history": ["a"]}, {"history": ["b"] * 5}])
    large = RequestTooLarge("too many bytes")
    scorer = FakeScorer(lambda histories: large if ["b"] * 5 in histories else None)
    score_file(source, tmp_path / "out.jsonl", tmp_path / "rejects.jsonl", scorer)
    (reject,) = read_jsonl(tmp_path / "rejects.jsonl")
    assert (reject["row"], reject["reason"]) == (1, "too many bytes")


def test_a_refusal_that_is_not_about_one_row_ends_the_scoring(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"history": ["a"]}])
    scorer = FakeScorer(lambda _: InvalidRequest("a column is missing"))
    with pytest.raises(InvalidRequest, match="a column is missing"):
        score_file(source, tmp_path / "out.jsonl", tmp_path / "rejects.jsonl", scorer)


def test_progress_ends_with_all_rows_and_the_whole_file(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"history": []}] * 10)
    reported: list[tuple[int, float]] = []
    score(
        source,
        tmp_path / "out.jsonl",
        rows_per_batch=3,
        progress=lambda rows, part: reported.append((rows, part)),
    )
    assert reported[-1] == (10, 1.0)
    assert reported == sorted(reported)
