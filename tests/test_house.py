"""The house rules that a machine can hold; CONTRIBUTING.md has them all."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fences import ROOT

ROOMS = ("model", "export", "service", "client", "persona")
SOURCES = sorted(
    path for folder in (*ROOMS, "bench", "docs", "tests") for path in (ROOT / folder).rglob("*.py")
)
# Who may import a runtime or a framework within `service`.
KEEPERS = {"onnxruntime": {"session.py"}, "fastapi": {"app.py", "routes.py"}}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """The top-level names of all that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def loaded_by(module: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after importing `module`."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["service.app", "client", "persona.cli", "persona.serve"])
def test_serving_and_scoring_never_import_pytorch(module: str) -> None:
    assert not loaded_by(module) & {"torch", "lightning", "onnx", "onnxscript"}


def test_the_client_imports_no_server() -> None:
    assert not loaded_by("client") & {"onnxruntime", "fastapi", "uvicorn"}


def test_the_command_line_imports_no_room_before_a_verb_runs() -> None:
    assert not loaded_by("persona.cli") & {"model", "export", "service", "client", "numpy"}


@pytest.mark.parametrize("package", KEEPERS)
def test_within_the_service_only_its_keepers_import(package: str) -> None:
    importing = {path.name for path in (ROOT / "service").glob("*.py") if package in imports(path)}
    assert importing == KEEPERS[package]


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "persona"])
def test_the_errors_of_a_room_are_drawn_in_the_docstring(room: str) -> None:
    tree = ast.parse((ROOT / room / "errors.py").read_text())
    drawn = ast.get_docstring(tree) or ""
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert not [name for name in classes if not re.search(rf"\b{name}\b", drawn)]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_suppression_names_its_rule_and_its_reason(path: Path) -> None:
    suppression = re.compile(r"#\s*(?:noqa|type:\s*ignore)\b(.*)")
    # Of a rule in capitals and digits or of a code in brackets, then the reason.
    complete = re.compile(r"(?:: [A-Z]+\d+(?:, [A-Z]+\d+)*|\[[\w, -]+\])\s+(?:# |- )\w")
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = suppression.search(line)
        if found and path != Path(__file__):
            assert complete.match(found[1]), f"{relative(path)}:{number}: {line.strip()}"


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = re.compile(r"util|helper|manager|common|misc")
    assert not [relative(path) for path in SOURCES if empty.search(path.stem)]


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=relative)
def test_no_test_uses_a_mock_library(path: Path) -> None:
    names = {"mock", "unittest", "pytest_mock", "respx", "responses"}
    assert not names & set(imports(path))
