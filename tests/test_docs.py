"""The documentation is run: every shell and Python fence of every page, in order, for real."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persona.score import local_service
from tests.fences import ROOT, Fence, commands, fences, pages

SHELL = {"console", "bash", "sh"}
SHOWN = {"json", "text", "toml", "yaml", "mermaid", "csv"}  # not code that could run

# Every command that is not run, and why. What is not here runs.
NOT_RUN = {
    r"make ": "the verbs; .ci/run calls lint and test in a fresh clone, below is `make help`",
    r"git |cd |python3? -m venv |(\S+/)?pip ": "sets up a machine; .ci/run does it all in a clone",
    r"(\w+=\S+ )*persona serve": "does not return; every page talks to a service started like it",
    r"persona data download": "needs the internet; test_download.py has a server of its own",
    r"docker ": "needs an engine; test_container.py builds and runs the image where there is one",
    r"(\S+/)?python -m bench": "measures for minutes",
    r"\.ci/run|(\S+/)?pytest": "would call itself",
}
PAGES = [page for page in pages() if any(fence.language not in SHOWN for fence in fences(page))]


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A service on the shipped artifacts, started as `make serve` does."""
    with local_service(ROOT / "artifacts") as url:
        yield url


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like the checkout, with the small click files that the pages speak of."""
    for name in ("artifacts", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "data").mkdir()
    write_visitors(tmp_path / "data" / "msnbc990928.seq")
    clicks = "user,item,time\nann,frontpage,1\nann,news,2\nbob,sports,1\n"
    (tmp_path / "clicks.csv").write_text(clicks)
    persona = f"{sys.executable} -m persona"
    convert = f"{persona} data convert clicks.csv users.parquet"
    subprocess.run(convert.split(), cwd=tmp_path, env=environment(), check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_visitors(path: Path) -> None:
    """300 visitors in MSNBC's format, who look at one section again and again."""
    sections = (
        "frontpage news tech local opinion on-air misc weather msn-news "
        "health living business msn-sports sports summary bbs travel"
    )
    rows = [" ".join([str(visitor % 17 + 1)] * (visitor % 5 + 1) + ["1"]) for visitor in range(300)]
    path.write_text(f"{sections}\n\n% Sequences:\n\n" + "\n".join(rows) + "\n")


def environment() -> dict[str, str]:
    """Commands find this environment's `persona`; the checkout is importable."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def pointed_at(text: str, address: str) -> str:
    """The text with the tests' service in place of the one on port 8000."""
    text = re.sub(r"http://(127\.0\.0\.1|localhost):8000", address, text)
    text = re.sub(r"\b((?:Async)?Client)\((?=\)|\w+=)", rf'\1("{address}", ', text)
    return re.sub(r"persona score (?!.*--(url|artifacts))", f"persona score --url {address} ", text)


def run_shell(fence: Fence, address: str, desk: Path) -> None:
    wanted = [command for command in commands(fence) if not reasons(command)]
    script = pointed_at("\n".join(wanted), address)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=desk,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, f"{fence.page}:{fence.line}\n{script}\n{done.stdout}{done.stderr}"


def run_python(fence: Fence, address: str, names: dict[str, Any]) -> None:
    # Empty lines before it, so that a traceback names the line of the page.
    source = "\n" * (fence.line - 1) + pointed_at(fence.text, address)
    exec(compile(source, str(fence.page), "exec"), names)


def reasons(command: str) -> list[str]:
    return [reason for pattern, reason in NOT_RUN.items() if re.match(pattern, command)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_fence_of_the_page_runs(page: Path, address: str, desk: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for fence in fences(page):
        if fence.language in SHELL:
            run_shell(fence, address, desk)
        elif fence.language == "python":
            run_python(fence, address, names)


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
    verbs = set(re.findall(r"make (\w+)", shown.stdout))
    assert {"serve", "test", "lint", "format", "train", "export", "bench", "docs"} <= verbs
    named = {verb for page in pages() for verb in re.findall(r"`make ([a-z]+)", page.read_text())}
    assert named <= verbs | {"help"}
