"""Temporary folders of processes that are killed."""

import subprocess
import sys
from pathlib import Path

from service.owned_folder import owned_folder
from tests.fences import ROOT

HOLD = """
import sys
from pathlib import Path
from service.owned_folder import owned_folder

with owned_folder("persona-test-", Path(sys.argv[1])) as folder:
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def test_a_folder_goes_with_its_process_or_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "persona-test-of-somebody-else").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout
        theirs = tmp_path / other.stdout.readline().strip()
        with owned_folder("persona-test-", tmp_path) as ours:
            assert theirs.is_dir()
            assert ours.is_dir()
        assert not ours.exists()
        other.kill()
    assert theirs.is_dir()
    with owned_folder("persona-test-", tmp_path):
        assert not theirs.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["persona-test-of-somebody-else"]
