"""Hostile input: the table of the tests, sent to `persona serve` with two workers."""

from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import httpx
import typer

from bench.peers import persona, running
from bench.results import record
from tests.service.hostile.cases import LIMITS, VALID, Case, all_cases
from tests.service.hostile.wire import first_reply

ARTIFACTS = Path(__file__).parents[1] / "artifacts"


def hostile() -> None:
    """Inputs that are sent, and those that are not refused as documented or hurt the server."""
    command, cases = "python -m bench hostile", all_cases()
    limits = {f"PERSONA_{name.upper()}": str(value) for name, value in LIMITS.items()}
    with (
        running(replace(persona(ARTIFACTS), variables=limits)) as started,
        httpx.Client(base_url=f"http://127.0.0.1:{started.port}", timeout=30) as client,
    ):
        failed = [case.name for case in cases if not _holds(client, case)]
    typer.echo(f"{len(cases)} inputs, {len(failed)} failures {', '.join(failed)}")
    record("hostile_inputs", len(cases), 250, command)
    record("hostile_failures", len(failed), 0, command)


def _holds(client: httpx.Client, case: Case) -> bool:
    reply = first_reply(client.base_url.port or 0, [case.raw], half_close=case.half_close)
    shaped = reply.status == 0 or bool(reply.error["code"])
    answered = client.post("/v1/encode", content=VALID).status_code
    return reply.status == case.status and shaped and answered == HTTPStatus.OK
