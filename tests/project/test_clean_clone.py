"""README.md from a clean clone, in two new terminals: every command as printed, in its order."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fences import ROOT, commands, fences
from tests.project.test_docs import SHELL, new_terminal
from tests.serving import status_of, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SERVE = "make serve"
NOT_HERE = ("docker ",)  # test_container.py


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clean clone of what is committed."""
    folder = tmp_path / "persona"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


@pytest.fixture
def served(clone: Path) -> Iterator[Path]:
    """The clone, while `make serve` runs in a first terminal."""
    first = subprocess.Popen(
        ["bash", "-c", SERVE], cwd=clone, env=new_terminal(), start_new_session=True
    )
    try:
        ready = "http://127.0.0.1:8000/health/ready"
        wait_until(lambda: status_of(ready) == 200 or first.poll() is not None, seconds=1800)
        assert first.poll() is None, "make serve ended"
        yield clone
    finally:
        os.killpg(first.pid, signal.SIGTERM)
        first.wait()


def test_the_commands_of_the_readme_work_in_a_second_terminal(served: Path) -> None:
    lines = []
    for fence in fences(served / "README.md"):
        if fence.language in SHELL:
            wanted = [one for one in commands(fence) if one != SERVE]
            lines += [one for one in wanted if not one.startswith(NOT_HERE)]
        elif fence.language == "python":
            file = served / f"snippet_{fence.line}.py"
            file.write_text(fence.text)
            lines.append(f"python {file}")
    (served / "clicks.csv").write_text("user,item,time\nann,news,1\nann,tv,2\nbob,news,1\n")
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(lines)],
        cwd=served,
        env=new_terminal(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
