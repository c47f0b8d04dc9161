"""The Spark function of docs/scoring.md: its own code without Spark, and with it where it is."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persona.engine import Engine
from tests.fences import ROOT, fences

pd: Any = pytest.importorskip("pandas")  # that Ray brings; it has no types
HISTORIES: list[list[str]] = [["frontpage", "news"], [], ["sports"] * 30]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the artifacts and `users.parquet` of the page."""
    (tmp_path / "artifacts").symlink_to(ROOT / "artifacts")
    table = pa.table({"history": pa.array(HISTORIES, pa.list_(pa.string()))})
    pq.write_table(table, tmp_path / "users.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def documented() -> tuple[str, str]:
    """The function of the page, and the expression that uses it."""
    (fence,) = (
        fence for fence in fences(ROOT / "docs" / "scoring.md") if "@pandas_udf" in fence.text
    )
    function, use = fence.text.split("\n\n\n")
    return function, use


def expected() -> Any:
    return Engine.open(ROOT / "artifacts" / "news").encode(HISTORIES).embeddings


def test_the_function_encodes_every_batch_of_a_partition(folder: Path) -> None:
    def plain(_type: str) -> Callable[[Any], Any]:
        return lambda function: function

    names: dict[str, Any] = {"pandas_udf": plain, "pd": pd, "Engine": Engine, "Iterator": Iterator}
    exec(documented()[0], names)
    # What Spark hands over: a list column as arrays.
    column = pd.Series([np.array(history, object) for history in HISTORIES])
    answers = pd.concat(list(names["encode"](iter([column[:2], column[2:]]))))
    np.testing.assert_allclose(np.array(answers.tolist()), expected(), atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")
def test_spark_gives_the_embeddings_of_the_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed: pip install pyspark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, and there is no `java`")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
    spark = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    function, use = documented()
    names = {"spark": spark.getOrCreate(), "pandas_udf": sql.functions.pandas_udf}
    names |= {"pd": pd, "Engine": Engine, "Iterator": Iterator}
    try:
        exec(function, names)
        rows = eval(use, names).collect()
    finally:
        names["spark"].stop()
    np.testing.assert_allclose(np.array([row.embedding for row in rows]), expected(), atol=1e-6)
