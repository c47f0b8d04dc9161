"""Scoring in processes of this machine, with a real model."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persona.artifact import ArtifactError
from persona.coded import CodedHistories
from persona.contract import ModelNotFound
from persona.engine import Engine
from persona.scoring import (
    InternalError,
    ProcessScorer,
    ScoreReport,
    ScoringError,
    WorkerEnded,
    score_file,
)
from persona.scoring.parts import Part
from persona.scoring.scorer import Plan
from tests.scoring.small_tables import (
    content_of,
    read_jsonl,
    rejects_of,
    write_jsonl,
    write_parquet,
)
from tests.serving import wait_until

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from persona.scoring import ProcessScorer, score_file

source, target, artifacts = sys.argv[1:]
score_file(source, target, ProcessScorer(artifacts, workers=2), part_rows=50)
"""


def users(count: int) -> list[dict[str, Any]]:
    """Histories of all lengths, with unknown items, and a row to reject every fiftieth."""
    draw = random.Random(0)
    rows: list[dict[str, Any]] = [
        {"id": row, "history": [f"item {draw.randrange(25)}" for _ in range(row % 17)]}
        for row in range(count)
    ]
    for row in rows[49::50]:
        row["history"] = None
    return rows


def score(source: Path, target: Path, artifacts: Path, **options: Any) -> ScoreReport:
    return score_file(source, target, ProcessScorer(artifacts, workers=2), **options)


def test_embeddings_are_those_of_the_engine(tiny_artifacts: Path, tmp_path: Path) -> None:
    rows = users(300)
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    report = score(source, tmp_path / "out.parquet", tiny_artifacts, part_rows=100)
    histories = [row["history"] for row in rows if row["history"] is not None]
    expected = Engine.open(tiny_artifacts).encode(histories)
    written = pq.read_table(tmp_path / "out.parquet")
    embeddings = np.array(written["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(embeddings, expected.embeddings, atol=1e-6)
    assert written["unknown"].to_pylist() == [user.unknown for user in expected.users]
    assert report.counts.unknown == sum(user.unknown for user in expected.users)
    assert report.counts.truncated == sum(user.truncated > 0 for user in expected.users)
    assert report.padding_ratio
    assert 1 <= report.padding_ratio < 1.5


def test_the_parts_do_not_change_what_is_written(tiny_artifacts: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", users(300))
    for rows in (70, 1000):
        score(source, tmp_path / f"{rows}.jsonl", tiny_artifacts, part_rows=rows)
    assert (tmp_path / "70.jsonl").read_bytes() == (tmp_path / "1000.jsonl").read_bytes()


def test_rows_with_unknown_items_can_be_rejected(tiny_artifacts: Path, tmp_path: Path) -> None:
    histories = [["item 1"], ["item 1", "other"], ["item 2"]] * 50
    source = write_parquet(tmp_path / "in.parquet", histories)
    report = score(source, tmp_path / "out.csv", tiny_artifacts, unknown_items="error")
    assert (report.counts.scored, report.counts.rejected) == (100, 50)
    reasons = {reject["reason"] for reject in rejects_of(tmp_path / "out.csv")}
    assert reasons == {"the history, item 1: unknown item 'other'"}


def test_items_can_be_recommended_in_place_of_embeddings(
    tiny_artifacts: Path, tmp_path: Path
) -> None:
    histories = [["item 1", "item 2"], [], ["item 3"] * 5]
    source = write_parquet(tmp_path / "in.parquet", histories)
    options: dict[str, Any] = {"recommend": 4, "exclude_seen": True}
    score(source, tmp_path / "out.jsonl", tiny_artifacts, **options)
    expected = Engine.open(tiny_artifacts).recommend(histories, 4, exclude_seen=True).users
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [row["items"] for row in rows] == [user.items for user in expected]
    np.testing.assert_allclose(
        [row["scores"] for row in rows], [user.scores for user in expected], atol=1e-5
    )
    assert "embedding" not in rows[0]


def test_recommended_items_stand_beside_embeddings(tiny_artifacts: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", users(300))
    options: dict[str, Any] = {"recommend": 3, "embeddings": True, "part_rows": 100}
    report = score(source, tmp_path / "out.parquet", tiny_artifacts, **options)
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert schema.names[2:5] == ["embedding", "items", "scores"]
    assert schema.field("items").type == pa.list_(pa.string())
    assert report.padding_ratio
    assert 1 <= report.padding_ratio < 1.5


def test_an_array_alone_holds_no_recommended_items(tiny_artifacts: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", users(1))
    with pytest.raises(ScoringError, match="choose another format for recommended items"):
        score(source, tmp_path / "out.npy", tiny_artifacts, recommend=3)


def test_a_folder_without_artifacts_is_named(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", users(1))
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        score(source, tmp_path / "out.csv", tmp_path)


def test_an_unknown_model_is_named(tiny_artifacts: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", users(1))
    with pytest.raises(ModelNotFound, match="no model 'news' here, only tiny"):
        score(source, tmp_path / "out.csv", tiny_artifacts, model="news")


def test_an_internal_error_of_a_worker_is_one_line(
    tiny_artifacts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scorer = ProcessScorer(tiny_artifacts, workers=1)
    wrong: Any = "a format that no part has"
    with closing(scorer):
        scorer.start(Plan(wrong, pa.string(), pa.schema([])))
        error = scorer.submit(
            Part(0, "in.jsonl", [0], [1], ["ann"], CodedHistories.of([["item 1"]]))
        ).result()
    assert isinstance(error, InternalError)
    assert str(error) == f"internal error: KeyError: '{wrong}'"
    assert "Traceback" in error.__notes__[0]
    assert capfd.readouterr().err == ""


def children(of: int) -> set[int]:
    """The processes that a process has started."""
    files = Path(f"/proc/{of}/task").glob("*/children")
    return {int(process) for file in files for process in file.read_text().split()}


def alive(processes: set[int]) -> bool:
    return any(Path(f"/proc/{process}").exists() for process in processes)


def test_a_worker_that_is_killed_ends_the_run_which_goes_on(
    tiny_artifacts: Path, tmp_path: Path
) -> None:
    source, target = write_jsonl(tmp_path / "in.jsonl", users(500)), tmp_path / "out.jsonl"

    def kill_one(_rows: int, _fraction: float) -> None:
        workers = {pid for pid in children(os.getpid()) if "worker" in command_of(pid)}
        for worker in list(workers)[:1]:
            os.kill(worker, signal.SIGKILL)

    with pytest.raises(WorkerEnded, match="ended with signal 9; is there enough memory"):
        score(source, target, tiny_artifacts, part_rows=20, progress=kill_one)
    report = score(source, target, tiny_artifacts, part_rows=20)
    assert (report.counts.rows, report.resumed_rows > 0) == (500, True)


def command_of(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")


class Killed:
    """A scoring in a process of its own that can be killed."""

    def __init__(self, source: Path, target: Path, artifacts: Path) -> None:
        self.work = target.with_name(f"{target.name}.work")
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, source, target, artifacts],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def finished_parts(self) -> int:
        return len(list(self.work.glob("part-*")))

    def has_finished(self, parts: int) -> bool:
        """Whether it has so many parts, or has ended before."""
        return self.finished_parts() >= parts or self.process.poll() is not None

    def kill(self, with_signal: signal.Signals = signal.SIGKILL) -> set[int]:
        """Kills the process; returns its workers."""
        workers = children(self.process.pid)
        self.process.send_signal(with_signal)
        self.process.wait()
        return workers


@pytest.fixture(scope="module")
def whole(tiny_artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    source = write_jsonl(folder / "in.jsonl", users(3000))
    score(source, folder / "out.parquet", tiny_artifacts, part_rows=50)
    return folder


@pytest.mark.parametrize(
    "times",
    [
        pytest.param(2, id="twice"),
        pytest.param(20, id="20 times", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)
def test_a_run_that_is_killed_again_and_again_gives_the_same_bytes(
    tiny_artifacts: Path, whole: Path, tmp_path: Path, times: int
) -> None:
    draw, target = random.Random(times), tmp_path / "out.parquet"
    for kill in range(times):
        run = Killed(whole / "in.jsonl", target, tiny_artifacts)
        wait_until(
            partial(run.has_finished, run.finished_parts() + draw.randrange(1 + 60 // times))
        )
        time.sleep(draw.random() * (0.05 if kill % 2 else 3.0))  # while it starts, or works
        workers = run.kill()
        wait_until(lambda: not alive(workers))  # noqa: B023  # called before the next round
    score(whole / "in.jsonl", target, tiny_artifacts, part_rows=50)
    assert content_of(target) == content_of(whole / "out.parquet")
    rows = pq.read_table(target)["row"].to_pylist()
    rejected = [reject["row"] for reject in rejects_of(target)]
    assert sorted(rows + rejected) == list(range(3000))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(
    tiny_artifacts: Path, whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run = Killed(whole / "in.jsonl", tmp_path / "out.parquet", tiny_artifacts)
    wait_until(lambda: len(children(run.process.pid)) == 2)
    workers = run.kill(number)
    assert len(workers) == 2
    wait_until(lambda: not alive(workers))
