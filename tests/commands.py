"""The command line in this process, and the smallest recipe that it trains."""

from pathlib import Path

from typer.testing import CliRunner

from persona.cli.app import app

SMALL = """
name = "small"
[encoder]
width = 8
blocks = 1
max_length = 6
[training]
epochs = 2
"""


def persona(*words: str | Path) -> str:
    """The output of a command that succeeds."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, f"{done.output}{done.exception}"
    return done.output
