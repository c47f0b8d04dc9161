"""The house rules that a machine can check; CONTRIBUTING.md lists all of them."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fences import ROOT

# Which rooms a room may import, besides itself. The longest name that a module begins with is its
# room. `persona` names the rooms that users import; `persona.cli` imports a room when a verb runs.
ARROWS = {
    "persona.contract": "",
    "persona.results": "persona.contract",
    "persona.features": "persona.contract",
    "persona.coded": "persona.contract",
    "persona.columns": "",
    "persona.artifact": "persona.contract persona.columns persona.features",
    "persona.engine": "persona.contract persona.coded persona.columns persona.results"
    " persona.artifact",
    "persona.client": "persona.contract persona.coded persona.results",
    "persona.tables": "persona.contract persona.coded persona.columns",
    "persona.cpus": "",
    "persona.collector": "",
    "persona.colours": "",
    "persona.scoring": "persona.contract persona.coded persona.columns persona.results"
    " persona.tables persona.client persona.artifact persona.engine persona.cpus",
    "persona.cli": "persona service model export",
    "persona": "persona",
    "service.protocols": "service.errors service.lifecycle service.settings service.versions"
    " service.visit service.health"
    " persona.contract persona.columns persona.artifact persona.engine",
    "service": "persona.contract persona.collector persona.artifact persona.engine",
    "model.clicks": "model.errors persona.contract persona.columns persona.features persona.tables",
    "model.network": "model.errors persona.columns",
    "model.evaluation": "model.errors model.clicks model.network",
    "model.training": "model.errors model.clicks model.network model.evaluation persona.contract"
    " persona.columns persona.features persona.tables",
    "model.report": "model.errors model.clicks model.evaluation model.training persona.colours",
    "model": "persona.contract persona.columns persona.features persona.tables",
    "export": "model persona.contract persona.columns persona.artifact persona.engine"
    " persona.features persona.colours",
}
# Who may import a library. One that is not listed is not imported at all.
LIBRARIES = {
    "numpy": "persona service model export",
    "orjson": "persona.client persona.scoring persona.tables persona.cli service model.clicks",
    "httpx": "persona.client persona.scoring.service model.clicks.download",
    "ray": "persona.scoring.on_ray",
    "stamina": "persona.client persona.cli model.clicks.download",
    "pyarrow": "persona.scoring persona.tables model.clicks export.items",
    "duckdb": "persona.tables.database",
    "pydantic": "persona.artifact persona.cli service model.training",
    "pydantic_settings": "service.settings",
    "faiss": "persona.engine.index export.index",
    "onnxruntime": "persona.engine.session export",
    "fastapi": "service.app service.health service.openapi service.playground service.protocols",
    "starlette": "service",
    "prometheus_client": "service",
    "limits": "service",
    "cryptography": "persona.artifact.signature",
    "opentelemetry": "service.tracing",
    "uvicorn": "persona.cli.serve service",
    "httptools": "service.http",
    "typer": "persona.cli",
    "rich": "persona.cli model.training",
    "matplotlib": "persona.cli model.report export",
    "jinja2": "model.report",
    "torch": "model.network model.training model.evaluation export",
    "lightning": "model.training",
    "onnx": "export",
}
ROOMS = ("persona", "service", "model", "export")
FOLDERS = (*ROOMS, "bench", "deploy", "docs", "tests")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}
IN_ROOMS = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in ROOMS]
TRAINING = {"torch", "lightning", "onnx", "onnxscript"}
CONTRACT = {"ItemId", "UnknownItems", "AttentionDetail"}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def lies_in(module: str, packages: str) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages.split())


def imported(path: Path) -> Iterator[str]:
    """The full names that the module's import statements name, at its top and in functions."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def third_party(name: str) -> bool:
    top = name.partition(".")[0]
    return top not in sys.stdlib_module_names and top not in FOLDERS


def loaded_by(module: str) -> set[str]:
    """All modules that a fresh interpreter has after importing `module`."""
    code = f"import sys, {module}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("path", IN_ROOMS, ids=relative)
def test_a_module_imports_only_the_rooms_of_its_line(path: Path) -> None:
    module = module_name(path)
    room = max((room for room in ARROWS if lies_in(module, room)), key=len)
    ours = {name for name in imported(path) if name.partition(".")[0] in FOLDERS}
    assert not [name for name in ours if not lies_in(name, f"{room} {ARROWS[room]}")]


@pytest.mark.parametrize("path", IN_ROOMS, ids=relative)
def test_a_module_imports_only_the_libraries_that_it_may(path: Path) -> None:
    module = module_name(path)
    libraries = {name.partition(".")[0] for name in imported(path) if third_party(name)}
    assert not [name for name in libraries if not lies_in(module, LIBRARIES.get(name, ""))]


def test_every_name_of_the_tables_is_a_module() -> None:
    modules = {module_name(path) for path in IN_ROOMS}
    named = {*ARROWS, *" ".join((*ARROWS.values(), *LIBRARIES.values())).split()}
    assert named <= modules


@pytest.mark.parametrize(
    "module", ["persona", "persona.engine", "persona.cli.serve", "service.app"]
)
def test_what_serves_never_imports_pytorch(module: str) -> None:
    loaded = loaded_by(module)
    assert not [name for name in loaded if name.partition(".")[0] in TRAINING]


@pytest.mark.parametrize(
    "module", ["persona", "persona.client", "persona.scoring", "persona.tables"]
)
def test_a_client_needs_no_extra(module: str) -> None:
    extras = {"onnxruntime", "pydantic", "duckdb", "pyarrow", "fastapi", "uvicorn"}
    assert not loaded_by(module) & extras


def test_the_command_line_imports_no_room_before_a_verb_runs() -> None:
    rooms = "service model export numpy persona.engine persona.client persona.scoring"
    assert not [name for name in loaded_by("persona.cli.app") if lies_in(name, rooms)]


def test_the_words_of_the_contract_are_defined_once() -> None:
    definitions = [
        (relative(path), node.id)
        for path in IN_ROOMS
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in CONTRACT
    ]
    assert sorted(definitions) == [("persona/contract.py", word) for word in sorted(CONTRACT)]


def test_telemetry_is_off_before_onnx_runtime_is_imported() -> None:
    importing = [path for path in SOURCES if any(lies_in(n, "onnxruntime") for n in imported(path))]
    assert not [relative(path) for path in importing if not _imports_the_engine_first(path)]


def _imports_the_engine_first(path: Path) -> bool:
    """`persona.engine` turns telemetry off; a script in a foreign environment does so itself."""
    packages = [folder / "__init__.py" for folder in path.parents]
    if any(
        lies_in(name, "persona.engine")
        for init in packages
        if init in TREES
        for name in imported(init)
    ):
        return True
    before = path.read_text().partition("import onnxruntime")[0]
    return 'environ["ORT_DISABLE_TELEMETRY"] = "1"' in before


def test_no_private_name_of_a_library_is_imported() -> None:
    private = re.compile(r"\._(?!_)")
    names = ((path, name) for path in SOURCES for name in imported(path) if third_party(name))
    assert not [f"{relative(path)}: {name}" for path, name in names if private.search(name)]


def test_no_suppression_hides_a_private_name_of_a_library() -> None:
    assert not [relative(path) for path in IN_ROOMS if re.search(r"noqa:.*SLF", path.read_text())]


@pytest.mark.parametrize("trick", [r"object\.__new__", r"__class__ =", r"float\(str\(", "ctypes"])
def test_no_room_uses_a_trick_that_was_removed(trick: str) -> None:
    assert not [relative(path) for path in IN_ROOMS if re.search(trick, path.read_text())]


def test_a_type_is_the_same_for_the_checker_and_when_running() -> None:
    forks = (
        (path, node)
        for path in IN_ROOMS
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    )
    assert not [relative(path) for path, node in forks if node.orelse]


@pytest.mark.parametrize(
    "path",
    [path for path in IN_ROOMS if path.name == "errors.py" or path.stem == "contract"],
    ids=relative,
)
def test_the_errors_of_a_room_are_drawn_in_the_docstring(path: Path) -> None:
    drawn = ast.get_docstring(TREES[path]) or ""
    errors = [
        node.name for node in TREES[path].body if isinstance(node, ast.ClassDef) and node.bases
    ]
    assert not [name for name in errors if not re.search(rf"\b{name}\b", drawn)]


def test_a_suppression_names_its_rule_and_its_reason() -> None:
    suppression = re.compile(r"#\s*(?:noqa|type:\s*ignore)\b(.*)")
    complete = re.compile(r"(?:: [A-Z]+\d+(?:, [A-Z]+\d+)*|\[[\w, -]+\])  # \w")
    lines = (
        (f"{relative(path)}:{number}", suppression.search(line))
        for path in SOURCES
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
    )
    assert not [place for place, found in lines if found and not complete.match(found[1])]


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = re.compile(r"util|helper|manager|common|misc")
    assert not [relative(path) for path in SOURCES if empty.search(path.stem)]


def test_no_test_uses_a_mock_library() -> None:
    mocks = "mock unittest pytest_mock respx responses"
    tests = [path for path in SOURCES if ROOT / "tests" in path.parents]
    assert not [relative(path) for path in tests if any(lies_in(n, mocks) for n in imported(path))]


def test_the_wheel_holds_the_library_and_its_types_alone() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["packages"] == ["persona"]
    assert (ROOT / "persona/py.typed").is_file()
