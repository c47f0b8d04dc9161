"""The cost of keys, limits and request ids: answers per second with all of them and without."""

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.load import Load
from bench.online import MIXES, Rounds, Seconds, closed, rates
from bench.peers import Server, persona, running
from bench.report import table, tell
from bench.results import record
from service.keys import add_key

TARGET = 0.95
LIMITS = ("1000000/second", "10000000000/day")  # counted, and never reached
CLIENTS = 10  # who have a key


def secured(rounds: Rounds = 7, seconds: Seconds = 3.0) -> None:
    """Closed loop, one history a request: secured / open, both up and in turn."""
    series: dict[str, dict[str, list[Load]]] = {mix: {} for mix in MIXES}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = replace(persona(), name="open"), with_keys(Path(folder) / "keys.json")
        up = {server.name: stack.enter_context(running(server)) for server in servers}
        for number in range(rounds):
            for mix in MIXES:
                for name in sorted(up, reverse=bool(number % 2)):
                    series[mix].setdefault(name, []).append(closed(up[name], mix, seconds))
    found = {mix: {name: rates(loads) for name, loads in of.items()} for mix, of in series.items()}
    ratios = {mix: ratio(of["secured"], of["open"]) for mix, of in found.items()}
    command = f"python -m bench secured --rounds {rounds} --seconds {seconds:g}"
    record("secured_vs_open", min(ratios.values()), TARGET, command)
    rows = [
        [mix, *(f"{median(of[name]):,.0f}" for name in ("open", "secured")), ratios[mix]]
        for mix, of in found.items()
    ]
    about = (
        "Answers a second, medians of the rounds; the ratio is the median of the rounds' ratios. "
        f"`secured` has a file of {CLIENTS} keys with {len(LIMITS)} limits each, safe headers and "
        "request ids. Both count the same metrics."
    )
    head = ["load", "open", "secured", "secured / open"]
    tell("secured", "With keys, limits and request ids", f"{about}\n\n{table(head, rows)}")


def with_keys(file: Path) -> Server:
    """The service as it is run for strangers."""
    keys = [add_key(file, f"client-{number}", limits=LIMITS) for number in range(CLIENTS)]
    server = persona(keys_file=str(file), request_ids="true")
    headers = {"Authorization": f"Bearer {keys[-1]}"}
    return replace(server, name="secured", headers=headers)


def ratio(secured_: list[float], open_: list[float]) -> float:
    """The median of the rounds' ratios."""
    return round(median(after / before for after, before in zip(secured_, open_, strict=True)), 3)
