"""Generated requests: schemathesis plays the whole OpenAPI document against a running service."""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.house import ROOT, of_checkout
from bench.peers import running
from bench.report import table, tell
from bench.results import record

REQUESTS = 20_000
A_ROUTE = 200  # requests of each route in a run, at most
# A request that the schema allows may still be refused: for an unknown item, a limit, a shape.
EXCLUDED = "positive_data_acceptance"

Requests = Annotated[int, typer.Option(help="At least.", min=1)]


def schemathesis(requests: Requests = REQUESTS) -> None:
    """Generated requests to every route: failures are a 5xx, or what the document does not say."""
    played, seed, failures = 0, 0, Counter[str]()
    with running(of_checkout(ROOT, ROOT / "artifacts")) as started:
        while played < requests:
            seed += 1
            report = play(f"http://127.0.0.1:{started.port}", A_ROUTE, seed)
            played += report["test_cases"]["generated"]
            failures.update(describe(report))
            typer.echo(f"seed {seed}: {played:,} requests, {failures.total()} failures")
    for text, count in failures.items():
        typer.echo(f"{count} x {text}")
    command = f"python -m bench schemathesis --requests {requests}"
    record("schemathesis_requests", played, REQUESTS, command)
    record("schemathesis_failures", failures.total(), 0, command)
    about = (
        "Requests that schemathesis generates from docs/openapi.json, valid and broken, route by "
        f"route and in sequences; every check but `{EXCLUDED}`, as a request that the schema "
        "allows may name an unknown item."
    )
    rows = [[f"{played:,}", seed, failures.total()]]
    head = ["requests", "seeds", "failures"]
    tell("generated", "Generated requests", f"{about}\n\n{table(head, rows)}")


def play(url: str, requests: int, seed: int) -> dict[str, Any]:
    """Schemathesis' report of one run.

    Args:
        url: of the service.
        requests: of each route and phase, at most.
        seed: of the requests.

    Raises:
        RuntimeError: it did not run to its end; the message is its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        options = f"--checks all --exclude-checks {EXCLUDED} --max-examples {requests}"
        options += f" --seed {seed} --report json --report-json-path {path} --warnings off"
        program = Path(sys.executable).with_name("schemathesis")
        words = [str(program), "run", f"{url}/openapi.json", *options.split(), "--no-color"]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        if not path.exists():
            raise RuntimeError(f"schemathesis: {done.stdout}{done.stderr}")
        report: dict[str, Any] = json.loads(path.read_text())
    if not report["complete"] or report["errors"]:
        raise RuntimeError(f"schemathesis: {done.stdout}{done.stderr}")
    return report


def describe(report: dict[str, Any]) -> list[str]:
    """A line for each failure of a run."""
    return [json.dumps(failure, sort_keys=True)[:500] for failure in report["failures"]]
