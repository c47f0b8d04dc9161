"""The documentation is run: every shell and Python fence of every page, in order, for real.

A page is one terminal: bash without our environment on its path, in a folder that looks like a
checkout after `make serve`. So a page whose commands need `.venv` has to activate it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fences import ROOT, commands, fences, pages
from tests.serving import running_service

SHELL = {"console", "bash", "sh"}
SHOWN = {"json", "text", "toml", "yaml", "mermaid", "csv"}  # not code that could run

# Every command that is not run, and why. What is not here runs.
NOT_RUN = {
    r"make ": "the verbs; test_clean_clone.py runs `make serve`, .ci/run the tests, below is help",
    r"git |cd |python3? -m venv |(\S+/)?pip ": "sets up a machine; .ci/run does it all in a clone",
    r"(\w+=\S+ )*persona serve": "does not return; every page talks to a service started like it",
    r"persona data download": "needs the internet; test_download.py has a server of its own",
    r"kubectl ": "needs a cluster; test_kubernetes.py renders the manifests",
    r"(\w+=\S+ )*docker ": "needs an engine; test_container.py runs the image where there is one",
    r"(\S+/)?python -m (bench|tests.mutations)": "measures for minutes",
    r"\.ci/run|(\S+/)?pytest": "would call itself",
    r"(\S+/)?pre-commit install": "changes the repository",
}
SLOW = re.compile(r"^persona (train|evaluate|export)\b|^import ray", re.MULTILINE)


def runnable() -> Iterator[object]:
    """The pages with code; those that train, export or start Ray are slow."""
    for page in pages():
        found = [fence for fence in fences(page) if fence.language not in SHOWN]
        if found:
            slow = any(SLOW.search(fence.text) for fence in found)
            marks = [pytest.mark.slow, pytest.mark.timeout(3600)] if slow else []
            yield pytest.param(page, marks=marks, id=str(page.relative_to(ROOT)))


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A service on the shipped artifacts, started as `make serve` does."""
    with running_service(ROOT / "artifacts") as url:
        yield url


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder like the checkout, with the small click files that the pages speak of."""
    for name in ("artifacts", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "data").mkdir()
    write_visitors(tmp_path / "data" / "msnbc990928.seq")
    rows = [
        f"{user},{item},{time}"
        for time in range(6)
        for user, item in (("ann", "news"), ("bob", "tv"), ("eve", "news"))
    ]
    (tmp_path / "clicks.csv").write_text("\n".join(["user,item,time", *rows, ""]))
    users = ['{"id": "ann", "history": ["frontpage", "news"]}', '{"id": "bob", "history": []}']
    (tmp_path / "users.jsonl").write_text("\n".join([*users, ""]))
    return tmp_path


def write_visitors(path: Path) -> None:
    """300 visitors in MSNBC's format, who look at one section again and again."""
    sections = (
        "frontpage news tech local opinion on-air misc weather msn-news "
        "health living business msn-sports sports summary bbs travel"
    )
    rows = [" ".join([str(visitor % 17 + 1)] * (visitor % 5 + 1) + ["1"]) for visitor in range(300)]
    path.write_text(f"{sections}\n\n% Sequences:\n\n" + "\n".join(rows) + "\n")


def new_terminal() -> dict[str, str]:
    """The environment of a shell in which nothing was activated."""
    ours = str(Path(sys.prefix) / "bin")
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != ours)
    kept = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    return kept | {"PATH": path, "COLUMNS": "100"}


def pointed_at(text: str, address: str) -> str:
    """The text with the tests' service in place of the one on port 8000."""
    text = re.sub(r"http://(127\.0\.0\.1|localhost):8000", address, text)
    text = text.replace('"127.0.0.1:8000"', f'"{address.removeprefix("http://")}"')
    text = re.sub(r"\b((?:Async)?Client)\((?=\)|\w+=)", rf'\1("{address}", ', text)
    return re.sub(r"persona score (?!.*--(url|artifact))", f"persona score --url {address} ", text)


def as_script(page: Path, address: str, desk: Path) -> str:
    """All fences of a page as one script, which says where it is."""
    lines = []
    for fence in fences(page):
        where = f"{page.relative_to(ROOT)}:{fence.line}"
        if fence.language in SHELL:
            wanted = [command for command in commands(fence) if not reasons(command)]
            lines += [f"echo 'at {where}'", *wanted]
        elif fence.language == "python":
            file = desk / f"snippet_{fence.line}.py"
            file.write_text(pointed_at(fence.text, address))
            lines += [f"echo 'at {where}'", f"python {file}"]
    return pointed_at("\n".join(lines), address)


def reasons(command: str) -> list[str]:
    return [reason for pattern, reason in NOT_RUN.items() if re.match(pattern, command)]


@pytest.mark.parametrize("page", list(runnable()))
def test_every_fence_of_the_page_runs_in_a_new_terminal(
    page: Path, address: str, desk: Path
) -> None:
    script = as_script(page, address, desk)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=desk,
        env=new_terminal(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n---\n{done.stdout}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_fence_says_what_it_is(page: Path) -> None:
    for fence in fences(page):
        known = fence.language in SHELL | SHOWN | {"python"}
        assert known, f"{page}:{fence.line}: language '{fence.language}'"


def test_no_exemption_is_left_over() -> None:
    everything = [
        command
        for page in pages()
        for fence in fences(page)
        if fence.language in SHELL
        for command in commands(fence)
    ]
    unused = [
        pattern
        for pattern in NOT_RUN
        if not any(re.match(pattern, command) for command in everything)
    ]
    assert not unused


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        link = "".join(target)
        if re.match(r"https?://|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), f"{page}: {link}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{page}: {link}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def test_make_help_lists_every_verb_that_the_pages_name() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    verbs = set(re.findall(r"make ([a-z-]+)", shown.stdout))
    assert {
        "serve",
        "install",
        "test",
        "test-all",
        "lint",
        "train",
        "export",
        "bench",
        "docs",
    } <= verbs
    named = {verb for page in pages() for verb in re.findall(r"`make ([a-z-]+)", page.read_text())}
    assert named <= verbs | {"help"}
