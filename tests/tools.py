"""Servers of others that a test talks to: installed beside our packages when a test wants them."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

TOOLS = Path(sys.prefix) / "tools"


def with_tools(*packages: str) -> dict[str, str]:
    """The environment of a process that has these packages, of exact versions, beside ours.

    They are installed once. A test that wants them is skipped where they cannot be had.
    """
    folder = TOOLS / " ".join(packages).replace("/", "-")
    if not folder.exists():
        TOOLS.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=TOOLS) as building:
            _install(packages, Path(building) / "packages")
            try:
                (Path(building) / "packages").rename(folder)
            except OSError:  # another test process was faster
                assert folder.exists()
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def _install(packages: tuple[str, ...], folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    done = subprocess.run([*command, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        pytest.skip(f"cannot install {' '.join(packages)}: {reason}")
