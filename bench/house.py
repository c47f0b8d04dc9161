"""This checkout beside an earlier commit of it: served rates, and clicks a second in training.

Both are up at the same time and measured in turn, round by round, so that what the machine gains or
loses from one minute to the next counts for both. A figure is the median over the rounds of the
ratio after / before in each.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from bench import encoders, load
from bench.batch import CONNECTIONS, batches
from bench.load import closed_loop, steady
from bench.online import REQUESTS, Rounds, Seconds
from bench.peers import Running, Server, persona, persona_body, running
from bench.report import table, tell
from bench.results import record

ROOT = Path(__file__).resolve().parents[1]
ML1M = ROOT.parent / "shared" / "data" / "ml-1m.txt"
BEFORE = "af0470f"  # the last commit before the rooms were parted
TARGETS = {"online_news": 0.82, "online_films": 0.93, "batch": 0.93, "pooled": 0.93}
TRAINING_TARGET = 0.97
LINES = 100_000  # of ml-1m, for two epochs of training

Commit = Annotated[str, typer.Option(help="What to compare with.")]
Measure = Callable[[Running, float], float]


def house(rounds: Rounds = 9, seconds: Seconds = 3.0, before: Commit = BEFORE) -> None:
    """Answers a second after / before: one history a request, batches, pooled attention."""
    with ExitStack() as stack:
        checkout = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "before"
        check_out(before, checkout)
        servers = {
            "before": of_checkout(checkout, artifacts_of(checkout)),
            "after": of_checkout(ROOT, encoders.artifacts()),
        }
        up = {name: stack.enter_context(running(server)) for name, server in servers.items()}
        rates: dict[str, dict[str, list[float]]] = {}
        for number in range(rounds):
            for kind, measure in MEASURES.items():
                # Who comes first alternates, as what comes second finds other caches.
                for name in sorted(up, reverse=bool(number % 2)):
                    found = measure(up[name], seconds)
                    rates.setdefault(kind, {}).setdefault(name, []).append(found)
                typer.echo(
                    f"{kind}: " + ", ".join(f"{n} {r[-1]:,.0f}" for n, r in rates[kind].items())
                )
    command = f"python -m bench house --rounds {rounds} --seconds {seconds:g} --before {before}"
    for kind, by_name in rates.items():
        record(f"house_{kind}", round(_ratio(by_name), 3), TARGETS[kind], command)
    tell("house", f"Beside commit {before}", _table(rates, rounds, seconds))


def house_training(
    rounds: Annotated[int, typer.Option(help="Rounds; medians count.", min=1)] = 3,
    before: Commit = BEFORE,
    data: Annotated[Path, typer.Option(help="ml-1m.txt.")] = ML1M,
) -> None:
    """Clicks a second after / before, in two epochs of the recipe ml-1m on its first lines."""
    rates: dict[str, list[float]] = {"before": [], "after": []}
    best: dict[str, set[float]] = {"before": set(), "after": set()}
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "before"
        check_out(before, checkout)
        recipe = Path(folder) / "ml-1m.toml"
        text = (ROOT / "recipes" / "ml-1m.toml").read_text().replace("epochs = 40", "epochs = 2")
        recipe.write_text(text.replace("[data]", f"[data]\nlimit = {LINES}"))
        for number in range(rounds):
            for name, root in (("before", checkout), ("after", ROOT)):
                facts = _train(root, recipe, data, Path(folder) / f"{name}-{number}")
                rates[name].append(facts["clicks_per_second"])
                best[name].add(facts["best"])
                typer.echo(f"{name}: {rates[name][-1]:,.0f} clicks a second, {best[name]}")
    command = f"python -m bench house-training --rounds {rounds} --before {before}"
    record("house_training", round(_ratio(rates), 3), TRAINING_TARGET, command)
    same = "the same" if best["before"] == best["after"] else "not the same"
    text = (
        f"Two epochs of the recipe ml-1m on the first {LINES:,} lines, one seed: "
        f"{median(rates['before']):,.0f} clicks a second before and {median(rates['after']):,.0f} "
        f"after (medians of {rounds} rounds in turn). The validation NDCG@10 of both is {same}: "
        f"before {sorted(best['before'])}, after {sorted(best['after'])}."
    )
    tell("house_training", f"Training beside commit {before}", text)


def check_out(commit: str, folder: Path) -> None:
    """A copy of this repository at a commit."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "checkout", "--quiet", commit], cwd=folder, check=True)


def of_checkout(root: Path, artifacts: Path, workers: int = 2) -> Server:
    """Persona as a checkout has it, in our environment."""
    server = persona(artifacts, workers)
    command = ("python", "-m", "persona", *server.command[1:])
    variables = {**server.variables, "PYTHONPATH": str(root)}
    return replace(server, name=f"Persona {root.name}", command=command, variables=variables)


def one_history(mix: str) -> Measure:
    """Closed loop over 32 connections, one history a request."""

    def measure(started: Running, seconds: float) -> float:
        return closed_loop(started.port, _requests(started.server, mix), seconds).per_second

    return measure


def in_batches(started: Running, seconds: float) -> float:
    """Requests of 256 mixed histories, embeddings in base64."""
    server = replace(started.server, body=lambda rows: persona_body(rows, encoding="base64"))
    requests = load.requests(server, batches("mixed"))
    return steady(started.port, requests, seconds, CONNECTIONS).per_second


def pooled(started: Running, seconds: float) -> float:
    """One history of films a request, with the weights that the embedding is read from."""
    server = replace(started.server, body=lambda rows: persona_body(rows, attention="pooled"))
    return closed_loop(started.port, _requests(server, "films"), seconds).per_second


MEASURES: Mapping[str, Measure] = {
    "online_news": one_history("news"),
    "online_films": one_history("films"),
    "batch": in_batches,
    "pooled": pooled,
}


def _requests(server: Server, mix: str) -> list[bytes]:
    from bench import loads

    rows = loads.histories(mix, REQUESTS)  # type: ignore[arg-type]  # a mix by its name
    return load.requests(server, [[history] for history in rows])


def artifacts_of(checkout: Path) -> Path:
    """The encoder of the benchmarks as that checkout exports it."""
    code = "from bench import encoders; print(encoders.artifacts())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, check=True, capture_output=True, text=True
    )
    return Path(done.stdout.split()[-1])


def _train(root: Path, recipe: Path, data: Path, run: Path) -> dict[str, float]:
    options = ["--recipe", str(recipe), "--data", str(data), "--output", str(run), "--no-progress"]
    command = [sys.executable, "-m", "persona", "train", *options]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    facts: dict[str, float] = json.loads((run / "training.json").read_text())
    shutil.rmtree(run)
    return facts


def _ratio(rates: Mapping[str, list[float]]) -> float:
    pairs = zip(rates["after"], rates["before"], strict=True)
    return median(after / before for after, before in pairs)


def _table(rates: Mapping[str, Mapping[str, list[float]]], rounds: int, seconds: float) -> str:
    rows = [
        [
            kind,
            *(f"{median(by_name[n]):,.0f}" for n in ("before", "after")),
            f"{_ratio(by_name):.3f}",
        ]
        for kind, by_name in rates.items()
    ]
    head = ["load", "before", "after", "after / before"]
    about = (
        f"Answers a second, medians of {rounds} rounds of {seconds:g} s; both servers are up and "
        "are measured in turn. The ratio is the median of the rounds' ratios. `batch` are requests "
        "of 256 histories, `pooled` one history of films with its pooled attention."
    )
    return f"{about}\n\n{table(head, rows)}"
