"""The command line as a whole, and what `import persona` brings."""

import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import persona
from persona.cli.rooms import EXTRAS
from tests.project.test_package import ROOT, run, write_own_modules
from tests.serving import free_port

HEAVY = {"duckdb", "fastapi", "lightning", "onnxruntime", "pyarrow", "pydantic", "torch"}


@pytest.mark.parametrize("verb", ["data", "train", "evaluate", "export", "serve"])
def test_a_users_own_module_that_hides_a_room_is_named(tmp_path: Path, verb: str) -> None:
    folder = write_own_modules(tmp_path)
    done = run(folder, sys.executable, "-m", "persona", verb)
    hiding = folder / ("service.py" if verb == "serve" else "model.py")
    assert done.returncode == 1
    assert done.stderr.startswith(f"persona: {hiding} hides Persona's own")
    assert done.stderr.count("\n") == 1


def test_importing_the_client_imports_nothing_heavy() -> None:
    script = "import sys; from persona import AsyncClient, Client; print(*sys.modules)"
    done = run(ROOT, sys.executable, "-c", script)
    assert not HEAVY & set(done.stdout.split())


def test_importing_persona_imports_no_dependency() -> None:
    done = run(ROOT, sys.executable, "-c", "import persona, sys; print(*sys.modules)")
    assert not {"httpx", "numpy"} & set(done.stdout.split())


@pytest.mark.parametrize("name", persona.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(persona, name)


def test_another_name_cannot_be_imported() -> None:
    with pytest.raises(ImportError, match="nothing"):
        from persona import nothing  # noqa: F401  # the mistake under test


def test_every_package_of_an_extra_has_its_hint() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for extra, needs in extras.items():
        names = {re.split(r"[\[<>=;]", need)[0].replace("-", "_") for need in needs}
        # All packages of OpenTelemetry share one name to import; faiss-cpu brings `faiss`.
        names = {"opentelemetry" if name.startswith("opentelemetry_") else name for name in names}
        names = {name.removesuffix("_cpu") for name in names}
        expected = names - {"persona_encoder"} if extra != "dev" else set()
        assert expected == set(EXTRAS.get(extra, "").split()), extra


def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("history\n[]\n")
    address = f"http://127.0.0.1:{free_port()}"  # nobody answers; the client tries again
    options = ["--url", address, "--input", "users.csv", "--output", "out.csv"]
    command = [sys.executable, "-m", "persona", "score", *options]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "trying again" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == -signal.SIGINT  # which a shell shows as 130
    assert "Traceback" not in rest
