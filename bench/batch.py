"""256 histories a request: against an ideal loop without HTTP, padding, and what weights cost."""

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from statistics import median
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from bench import encoders, load, loads
from bench.load import closed_loop, steady
from bench.loads import Rows
from bench.peers import Body, Running, persona, persona_body, running
from bench.report import table, tell
from bench.results import record
from persona.engine.session import flush_subnormals

BATCH = 256
BATCHES = 40  # different ones, played in turn
CONNECTIONS = 8
RUN_SIZES = (4, 8, 16, 32, 64, 128)  # of which the ideal loop takes the best
Embeddings = NDArray[np.float32]
Encode = Callable[[Rows], Embeddings]
Mixed = str  # a mix of loads, or "mixed": half the histories of either
KINDS = ("ideal", "float", "base64")

Rounds = Annotated[int, typer.Option(help="Rounds; medians count.", min=1)]
Seconds = Annotated[float, typer.Option(help="Of each measurement.", min=0.1)]


def batches(mix: Mixed, n: int = BATCHES, size: int = BATCH, seed: int = 0) -> list[Rows]:
    """Batches of histories of a mix, `size` each."""
    if mix != "mixed":
        rows = loads.histories(mix, n * size, seed)  # type: ignore[arg-type]  # one of them
    else:
        halves = [loads.histories(half, n * size // 2, seed) for half in ("news", "films")]
        rows = [history for pair in zip(*halves, strict=True) for history in pair]
    return [rows[at : at + size] for at in range(0, n * size, size)]


def batch(rounds: Rounds = 5, seconds: Seconds = 5.0) -> None:
    """256 histories a request: users a second against an ideal loop, and the padding ratio."""
    mixes = ("news", "films", "mixed")
    users: dict[tuple[str, str], list[float]] = {}
    padding: dict[str, float] = {}
    encoders.artifacts()  # made once, before two processes ask for it
    best = {mix: max(RUN_SIZES, key=lambda size: ideal(mix, size, 0.5)) for mix in mixes}
    with running(persona()) as started:
        for _ in range(rounds):
            for mix in mixes:  # one after the other, so that what drifts, drifts for all three
                users.setdefault(("ideal", mix), []).append(ideal(mix, best[mix], seconds))
                for encoding in ("float", "base64"):
                    found = users_a_second(started, mix, seconds, _body(encoding=encoding))
                    users.setdefault((encoding, mix), []).append(found)
                counts = ", ".join(f"{kind} {users[kind, mix][-1]:,.0f}" for kind in KINDS)
                typer.echo(f"{mix}: {counts}")
        for mix in mixes:
            padding[mix] = padding_ratio(started, mix)
    command = f"python -m bench batch --rounds {rounds} --seconds {seconds:g}"
    record("batch_vs_ideal", round(_share(users, "base64", "mixed"), 3), 0.85, command)
    record("batch_float_vs_ideal", round(_share(users, "float", "mixed"), 3), 0.85, command)
    for mix in ("news", "films"):
        record(f"padding_ratio_{mix}", round(padding[mix], 4), 1.10, command)
    tell("batch", "Batches of 256 histories", _section(users, padding, best, rounds, seconds))


def _share(users: Mapping[tuple[str, str], Sequence[float]], kind: str, mix: Mixed) -> float:
    """The share of the ideal loop's users per second: the median of the rounds' ratios."""
    ours, theirs = users[kind, mix], users["ideal", mix]
    return median(one / other for one, other in zip(ours, theirs, strict=True))


def _body(**fields: str) -> Body:
    return lambda histories: persona_body(histories, **fields)


def users_a_second(started: Running, mix: Mixed, seconds: float, body: Body) -> float:
    """Histories answered a second, in requests of 256 over 8 connections.

    Raises:
        RuntimeError: a request failed.
    """
    requests = load.requests(replace(started.server, body=body), batches(mix))
    answered = steady(started.port, requests, seconds, CONNECTIONS)
    if answered.failed:
        raise RuntimeError(f"{answered.failed:.1%} of the batches of {mix} failed")
    return answered.per_second * BATCH


def padding_ratio(started: Running, mix: Mixed) -> float:
    """Computed tokens over real ones, of batches that come one after the other."""
    before = _tokens(started)
    for rows in batches(mix, 20):
        started.post(rows)
    real, computed = (after - was for after, was in zip(_tokens(started), before, strict=True))
    return computed / real


def _tokens(started: Running) -> tuple[float, float]:
    lines = [line.rpartition(" ") for line in started.get("/metrics").splitlines()]
    values = {name.partition("{")[0]: float(value) for name, _, value in lines if name[:1] != "#"}
    return values["persona_real_tokens_total"], values["persona_computed_tokens_total"]


def ideal(mix: Mixed, run_size: int, seconds: float, processes: int = 2) -> float:
    """Users a second of processes that only sort a batch by length, cut it up and run the graph."""
    context = multiprocessing.get_context("spawn")
    barrier, counts = context.Barrier(processes), context.Queue()
    arguments = (mix, run_size, seconds, barrier, counts)
    started = [context.Process(target=_loop, args=arguments) for _ in range(processes)]
    for process in started:
        process.start()
    found = sum(counts.get(timeout=seconds + 120) for _ in started)
    for process in started:
        process.join()
    return float(found)


def _loop(
    mix: Mixed, run_size: int, seconds: float, barrier: Barrier, counts: "Queue[float]"
) -> None:
    path = encoders.artifacts() / encoders.NAME / "1" / "embedding.onnx"
    os.environ["BENCH_ONNX"] = str(path)
    from bench.servers.plain_encoder import PlainEncoder

    flush_subnormals()  # as Persona's workers do, before the first session is opened
    encoder, played = PlainEncoder(), batches(mix)
    _encode_sorted(encoder.encode, played[0], run_size)  # warm
    barrier.wait()
    done, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        _encode_sorted(encoder.encode, played[done % len(played)], run_size)
        done += 1
    counts.put(done * BATCH / passed)


def _encode_sorted(encode: Encode, histories: Rows, run_size: int) -> Embeddings:
    order = sorted(range(len(histories)), key=lambda row: len(histories[row]))
    runs = [order[at : at + run_size] for at in range(0, len(order), run_size)]
    found = np.concatenate([encode([histories[row] for row in run]) for run in runs])
    embeddings = np.empty_like(found)
    embeddings[order] = found
    return embeddings


def _section(
    users: Mapping[tuple[str, str], Sequence[float]],
    padding: Mapping[str, float],
    best: Mapping[str, int],
    rounds: int,
    seconds: float,
) -> str:
    rows = [
        [
            mix,
            f"{median(users['ideal', mix]):,.0f} (runs of {best[mix]})",
            *(
                f"{median(users[kind, mix]):,.0f} ({_share(users, kind, mix):.2f})"
                for kind in ("float", "base64")
            ),
            f"{padding[mix]:.3f}",
        ]
        for mix in best
    ]
    head = [
        "histories",
        "ideal loop",
        "Persona, float",
        "Persona, base64",
        "computed / real tokens",
    ]
    return (
        f"Users per second, medians of {rounds} rounds of {seconds:g} s, and medians of the "
        "rounds' ratios to the ideal loop. In this loop, two processes sort each batch by length, "
        "cut it into runs of the fastest size, and run Persona's own graph, without HTTP, item "
        f"ids or JSON. Persona gets its requests over {CONNECTIONS} connections. Its clients use "
        "base64, so `batch_vs_ideal` does too. Mixed: half news, half films. The tokens are those "
        "of batches that come one at a time.\n\n" + table(head, rows)
    )


def pooled(rounds: Rounds = 5, seconds: Seconds = 5.0) -> None:
    """One history a request, with the weights that the embedding is read from and without."""
    kinds, mixes = ("none", "pooled"), ("news", "films")
    users: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for kind in kinds:
            with running(persona(body=_body(attention=kind))) as started:
                for mix in mixes:
                    histories = loads.histories(mix, 2000)  # type: ignore[arg-type]  # one of them
                    requests = load.requests(started.server, [[history] for history in histories])
                    closed_loop(started.port, requests, seconds / 5)  # warm
                    found = closed_loop(started.port, requests, seconds).per_second
                    users.setdefault((kind, mix), []).append(found)
    rates = {key: median(values) for key, values in users.items()}
    shares = {mix: rates["pooled", mix] / rates["none", mix] for mix in mixes}
    command = f"python -m bench pooled --rounds {rounds} --seconds {seconds:g}"
    record("pooled_vs_plain", round(min(shares.values()), 3), 0.5, command)
    rows = [
        [mix, *(f"{rates[kind, mix]:,.0f}" for kind in kinds), f"{shares[mix]:.2f}"]
        for mix in mixes
    ]
    head = ["histories", "embedding a second", "with its weights", "ratio"]
    about = "One history a request, 32 connections, closed loop; the lower ratio is the figure."
    tell("pooled", "Embeddings with their weights", f"{about}\n\n{table(head, rows)}")
