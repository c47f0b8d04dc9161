"""The package as a user installs it: a wheel in an environment of its own."""

import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import persona
from tests.serving import running_service

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # builds, installs and exports


@dataclass(frozen=True)
class Desk:
    """An environment with the wheel, and a folder with modules that are named as rooms are."""

    bin: Path
    folder: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return run(self.folder, str(self.bin / command[0]), *command[1:])


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def write_own_modules(folder: Path) -> Path:
    for name in ("client", "model", "service", "export"):
        (folder / f"{name}.py").write_text("raise SystemExit('my own module was imported')")
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*command, str(folder), str(ROOT)], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def desk(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """The wheel and its base dependencies, in an environment that was empty."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-compile", str(wheel)], check=True)
    return Desk(folder / "bin", write_own_modules(tmp_path_factory.mktemp("desk")))


@pytest.fixture(scope="module")
def url(tiny_artifacts: Path) -> Iterator[str]:
    with running_service(tiny_artifacts) as address:
        yield address


def test_the_wheel_has_one_import_name_and_its_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"persona"}
    assert "persona/py.typed" in names


def test_the_client_works_beside_a_users_own_client_and_model(desk: Desk, url: str) -> None:
    script = (
        "from persona import Client; print(Client({!r}).encode([['item 1'], []]).embeddings.shape)"
    )
    done = desk.run("python", "-c", script.format(url))
    assert (done.returncode, done.stdout) == (0, "(2, 16)\n"), done.stderr


def test_the_installed_command_tells_its_version(desk: Desk) -> None:
    assert desk.run("persona", "--version").stdout == f"persona {persona.__version__}\n"


@pytest.mark.parametrize("verb", ["serve", "train", "evaluate", "export", "data"])
@pytest.mark.parametrize("command", [["persona"], ["python", "-m", "persona"]], ids=" ".join)
def test_a_verb_of_the_application_says_where_it_runs(
    desk: Desk, verb: str, command: list[str]
) -> None:
    done = desk.run(*command, verb)
    said = f"persona: `persona {verb}` runs from a checkout or the image; see the README\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_missing_extra_is_named(desk: Desk, url: str) -> None:
    options = ["--url", url, "--input", "users.csv", "--output", "out.csv"]
    done = desk.run("persona", "score", *options)
    assert done.returncode == 1
    assert re.fullmatch(
        r"persona: this needs \w+: pip install 'persona-encoder\[files\]'\n", done.stderr
    )
