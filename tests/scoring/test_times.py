"""Clicks with times in a file, scored by a model that reads them, and by one that does not."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persona.engine import Engine
from persona.scoring import ProcessScorer, ScoringError, ServiceScorer, score_file
from persona.scoring.scorer import Scorer
from tests.scoring.small_tables import read_output, write_jsonl
from tests.serving import serving

TODAY = 1_700_000_000
CLICKS = [("a", "item 1", 0), ("b", "item 2", 7), ("a", "item 3", 90_000), ("a", "new", 90_000.5)]


def write_clicks(path: Path) -> Path:
    user, item, time = zip(*CLICKS, strict=True)
    columns = {"user": user, "item": item, "time": [TODAY + one for one in time]}
    if path.suffix == ".csv":
        rows = zip(*columns.values(), strict=True)
        lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
        return path
    nanoseconds = [int(1e9) * int(one) + int(1e9 * (one % 1)) for one in columns["time"]]
    times = pa.array(nanoseconds, pa.timestamp("ns"))
    pq.write_table(pa.table({"user": user, "item": item, "time": times}), path)
    return path


@pytest.fixture(params=["processes", "service"])
def scorer(request: pytest.FixtureRequest, timed_artifacts: Path) -> Iterator[Scorer]:
    if request.param == "processes":
        yield ProcessScorer(timed_artifacts, workers=1)
        return
    with serving(timed_artifacts) as client:
        yield ServiceScorer(str(client.base_url))


@pytest.mark.parametrize("name", ["clicks.csv", "clicks.parquet"])
def test_a_model_that_reads_time_gets_the_times_of_a_table(
    name: str, scorer: Scorer, timed_artifacts: Path, tmp_path: Path
) -> None:
    target = tmp_path / "users.jsonl"
    score_file(write_clicks(tmp_path / name), target, scorer)
    histories = [
        {"items": ["item 1", "item 3", "new"], "times": [TODAY, TODAY + 90_000, TODAY + 90_000.5]},
        {"items": ["item 2"], "times": [TODAY + 7]},
    ]
    found = [row["embedding"] for row in read_output(target)]
    expected = Engine.open(timed_artifacts).encode(histories).embeddings
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_table_without_times_is_refused_before_anything_is_scored(
    timed_artifacts: Path, tmp_path: Path
) -> None:
    source = write_jsonl(tmp_path / "users.jsonl", [{"id": "a", "history": ["item 1"]}])
    with pytest.raises(ScoringError, match="timed reads the time of every click"):
        score_file(source, tmp_path / "out.jsonl", ProcessScorer(timed_artifacts, workers=1))


def test_a_model_that_reads_no_time_is_asked_as_before(
    tiny_artifacts: Path, tmp_path: Path
) -> None:
    target = tmp_path / "users.jsonl"
    score_file(
        write_clicks(tmp_path / "clicks.csv"), target, ProcessScorer(tiny_artifacts, workers=1)
    )
    found = [row["embedding"] for row in read_output(target)]
    plain = [["item 1", "item 3", "new"], ["item 2"]]
    expected = Engine.open(tiny_artifacts).encode(plain).embeddings
    np.testing.assert_allclose(found, expected, atol=1e-5)
