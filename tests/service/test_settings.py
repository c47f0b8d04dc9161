"""Settings: each documented, and workers by what the machine grants."""

import os
from pathlib import Path

import pytest

from persona.cpus import cpu_limit
from service.settings import Settings

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"
CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    start = f"| `PERSONA_{name.upper()}` |"
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith(start)]
    assert len(rows) == 1
    default = Settings.model_fields[name].default
    assert default is None or f"| `{default}` |" in rows[0]


def test_no_setting_is_documented_that_is_none() -> None:
    known = {f"PERSONA_{name.upper()}" for name in Settings.model_fields}
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `PERSONA_")]
    assert {line.split("`")[1] for line in rows} == known


def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_MAX_HISTORIES", "7")
    assert Settings().max_histories == 7


def test_without_a_quota_every_core_that_we_may_use_counts(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_limit(tmp_path) == CORES
    assert cpu_limit(tmp_path / "nowhere") == CORES


@pytest.mark.parametrize("quota", [50_000, 100_000, 190_000])
def test_a_quota_below_two_cores_gives_one_worker(tmp_path: Path, quota: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
    assert cpu_limit(tmp_path) == 1


def test_the_first_version_of_cgroups_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cpu_limit(tmp_path) == 1


def test_a_quota_above_our_cores_does_not_add_any(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000000 100000\n")
    assert cpu_limit(tmp_path) == CORES
