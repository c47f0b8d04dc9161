"""The work folder: parts are finished once, and only for the run that they belong to."""

import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persona.scoring import Counts, FileError, RunChanged
from persona.scoring.journal import Journal, journal_in
from persona.scoring.scorer import ScoredPart

RUN: dict[str, dict[str, Any]] = {
    "input": {"users.csv": "10 bytes"},
    "model": {},
    "options": {"keep": ("a", "b")},
}


def part(number: int, content: bytes = b"data") -> ScoredPart:
    return ScoredPart(number, Counts(rows=2, scored=2), {"data.csv": content})


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with journal_in(tmp_path / "work", RUN) as found:
        yield found


def test_finished_parts_are_found_again(tmp_path: Path) -> None:
    with journal_in(tmp_path / "work", RUN) as first:
        first.commit(part(7))
    with journal_in(tmp_path / "work", RUN) as second:
        assert second.counts == {7: Counts(rows=2, scored=2)}
        assert (second.path(7) / "data.csv").read_bytes() == b"data"


def test_a_part_is_finished_once_whoever_comes_first(journal: Journal) -> None:
    journal.commit(part(0, b"first"))
    journal.commit(part(0, b"second"))
    assert (journal.path(0) / "data.csv").read_bytes() == b"first"
    assert not list(journal.folder.glob("writing-*"))


def test_of_many_writers_of_a_part_one_wins_whole(journal: Journal) -> None:
    contents = [bytes([number]) * 50_000 for number in range(8)]
    writers = [
        threading.Thread(target=journal.commit, args=(part(0, content),)) for content in contents
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (journal.path(0) / "data.csv").read_bytes() in contents
    assert [path.name for path in journal.folder.glob("*-*")] == ["part-00000"]


def test_what_was_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "work" / "writing-abc").mkdir(parents=True)
    with journal_in(tmp_path / "work", RUN) as journal:
        assert sorted(path.name for path in journal.folder.iterdir()) == ["lock", "run.json"]


def test_another_run_is_refused_and_told_what_differs(tmp_path: Path) -> None:
    with journal_in(tmp_path / "work", RUN):
        pass
    other = RUN | {"input": {"users.csv": "11 bytes", "more.csv": "5 bytes"}}
    with pytest.raises(RunChanged, match=r"users\.csv: was 10 bytes, is 11 bytes") as caught:
        journal_in(tmp_path / "work", other).__enter__()
    assert "more.csv: was None, is 5 bytes" in str(caught.value)
    assert "--restart" in str(caught.value)


def test_a_restart_forgets_the_parts_of_another_run(tmp_path: Path) -> None:
    with journal_in(tmp_path / "work", RUN) as journal:
        journal.commit(part(0))
    with journal_in(tmp_path / "work", {"input": {}}, restart=True) as journal:
        assert journal.counts == {}


def test_parts_of_a_run_that_nobody_knows_are_forgotten(tmp_path: Path) -> None:
    with journal_in(tmp_path / "work", RUN) as journal:
        journal.commit(part(0))
    (tmp_path / "work" / "run.json").unlink()
    with journal_in(tmp_path / "work", {"input": {}}) as journal:
        assert journal.counts == {}


def test_a_part_loses_its_name_before_its_files(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.commit(part(0))
    with monkeypatch.context() as killed:  # right after the first steps
        killed.setattr("shutil.rmtree", lambda *_, **__: None)
        journal.remove()
    left = {path.name[:8] for path in journal.folder.iterdir()}
    assert left == {"lock", "writing-"}


def test_two_runs_do_not_work_in_one_folder(tmp_path: Path, journal: Journal) -> None:
    with pytest.raises(FileError, match="another process scores into it"):
        journal_in(journal.folder, RUN).__enter__()


def test_a_file_that_may_not_grow_is_an_error_that_says_how_to_go_on(journal: Journal) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(FileError, match="File too large; finished parts are kept"):
            journal.commit(part(0, b"x" * 2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(journal.folder.glob("*-*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 100 KB, where we may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_an_error_and_leaves_room_for_the_parts_before(small_disk: Path) -> None:
    with journal_in(small_disk / "work", RUN) as journal:
        journal.commit(part(0, b"x" * 50_000))
        with pytest.raises(FileError, match="No space left on device; finished parts are kept"):
            journal.commit(part(1, b"x" * 50_000))
        assert [path.name for path in journal.folder.glob("*-*")] == ["part-00000"]
        journal.commit(part(1, b"x" * 10_000))
    assert sorted(journal.counts) == [0, 1]
