"""Batches of 32 through OpenAI's API and the Open Inference Protocol, beside Persona's own.

One server answers all of them in turn, round by round; a figure is the median over the rounds of
the ratio to `POST /v1/encode` with floats, on the mix of histories where it is lower.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import typer
from numpy.typing import NDArray

from bench import encoders
from bench.batch import CONNECTIONS, Rounds, Seconds, batches
from bench.house import ROOT, of_checkout
from bench.load import steady
from bench.loads import Rows
from bench.peers import persona_body, running
from bench.report import table, tell
from bench.results import record

BATCH = 32
BATCHES = 200  # different ones, played in turn
MIXES = ("news", "films")
NATIVE = "/v1/encode"
INFER = f"/v2/models/{encoders.NAME}/infer"


@dataclass(frozen=True)
class Posted:
    """A body, and what its headers say beside its length."""

    body: bytes
    headers: Mapping[str, int] = field(default_factory=dict)


def native(histories: Rows) -> Posted:
    """Persona's own protocol, embeddings as JSON numbers."""
    return Posted(persona_body(histories, encoding="float"))


def openai(histories: Rows) -> Posted:
    """A text a history, embeddings as JSON numbers."""
    texts = [" ".join(ids) for ids in _ids(histories)]
    body = {"model": encoders.NAME, "input": texts, "encoding_format": "float"}
    return Posted(json.dumps(body).encode())


def v2_json(histories: Rows) -> Posted:
    """Flat ids and lengths, all of it JSON."""
    flat = [item_id for ids in _ids(histories) for item_id in ids]
    lengths = [len(history) for history in histories]
    inputs = [
        {"name": "item_ids", "shape": [len(flat)], "datatype": "BYTES", "data": flat},
        {"name": "lengths", "shape": [len(lengths)], "datatype": "INT64", "data": lengths},
    ]
    return Posted(json.dumps({"inputs": inputs}).encode())


def v2_json_rows(histories: Rows) -> Posted:
    """Padded rows and their mask, all of it JSON."""
    tensors = [
        {"name": name, "shape": values.shape, "datatype": datatype, "data": values.tolist()}
        for name, datatype, values in _padded(histories)
    ]
    return Posted(json.dumps({"inputs": tensors}).encode())


def v2_binary_ids(histories: Rows) -> Posted:
    """Flat ids and lengths, binary in both directions."""
    ids = [item_id.encode() for own in _ids(histories) for item_id in own]
    flat = b"".join(len(one).to_bytes(4, "little") + one for one in ids)
    lengths = np.array([len(history) for history in histories], "<i8")
    return _binary([
        ("item_ids", "BYTES", (len(ids),), flat),
        ("lengths", "INT64", lengths.shape, lengths.tobytes()),
    ])  # fmt: skip


def v2_binary(histories: Rows) -> Posted:
    """Padded rows and their mask, binary in both directions."""
    return _binary([
        (name, datatype, values.shape, values.tobytes())
        for name, datatype, values in _padded(histories)
    ])  # fmt: skip


def _ids(histories: Rows) -> list[list[str]]:
    return [[f"n{row}" for row in history] for history in histories]


def _padded(histories: Rows) -> list[tuple[str, str, NDArray[np.generic]]]:
    lengths = np.array([len(history) for history in histories])
    mask = np.arange(lengths.max()) < lengths[:, None]  # (B, L)
    rows = np.zeros(mask.shape, np.int64)
    rows[mask] = np.concatenate([np.array(history, np.int64) for history in histories])
    return [("item_ids", "INT64", rows), ("key_mask", "BOOL", mask)]


def _binary(tensors: Sequence[tuple[str, str, tuple[int, ...], bytes]]) -> Posted:
    inputs = [
        {
            "name": name,
            "datatype": datatype,
            "shape": shape,
            "parameters": {"binary_data_size": len(values)},
        }
        for name, datatype, shape, values in tensors
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = head + b"".join(values for *_, values in tensors)
    return Posted(body, {"Inference-Header-Content-Length": len(head)})


KINDS: Mapping[str, tuple[str, Callable[[Rows], Posted]]] = {
    "native": (NATIVE, native),
    "openai": ("/v1/embeddings", openai),
    "v2_json": (INFER, v2_json),
    "v2_json_rows": (INFER, v2_json_rows),
    "v2_binary": (INFER, v2_binary),
    "v2_binary_ids": (INFER, v2_binary_ids),
}
TARGETS = {"openai": 0.8, "v2_json": 0.8, "v2_binary": 1.0}
Rates = dict[tuple[str, str], list[float]]  # histories a second, by kind and mix


def protocols(rounds: Rounds = 5, seconds: Seconds = 3.0) -> None:
    """Histories a second in batches of 32: every protocol against Persona's own."""
    rates: Rates = {}
    loads = {(kind, mix): _requests(kind, mix) for kind in KINDS for mix in MIXES}
    with running(of_checkout(ROOT, encoders.artifacts())) as started:
        for number in range(rounds):
            for mix in MIXES:
                # Who comes first alternates, as what comes second finds other caches.
                for kind in sorted(KINDS, reverse=bool(number % 2)):
                    answered = steady(started.port, loads[kind, mix], seconds, CONNECTIONS)
                    if answered.failed:
                        raise RuntimeError(f"{kind}: {answered.failed:.1%} of the requests failed")
                    rates.setdefault((kind, mix), []).append(answered.per_second * BATCH)
                found = ", ".join(f"{kind} {rates[kind, mix][-1]:,.0f}" for kind in KINDS)
                typer.echo(f"{mix}: {found}")
    command = f"python -m bench protocols --rounds {rounds} --seconds {seconds:g}"
    for kind, target in TARGETS.items():
        worst = min(_ratio(rates, kind, mix) for mix in MIXES)
        record(f"{kind}_vs_native", round(worst, 3), target, command)
    tell("protocols", "Protocols", _section(rates, rounds, seconds))


def _requests(kind: str, mix: str) -> list[bytes]:
    path, body = KINDS[kind]
    made = []
    for rows in batches(mix, BATCHES, BATCH):
        posted = body(rows)
        headers = {"Host": "localhost", "Content-Length": len(posted.body), **posted.headers}
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        made.append("\r\n".join([*lines, "", ""]).encode() + posted.body)
    return made


def _ratio(rates: Rates, kind: str, mix: str) -> float:
    pairs = zip(rates[kind, mix], rates["native", mix], strict=True)
    return median(one / native for one, native in pairs)


def _section(rates: Rates, rounds: int, seconds: float) -> str:
    rows = [
        [
            kind,
            (body.__doc__ or "").rstrip("."),
            *(f"{median(rates[kind, m]):,.0f} ({_ratio(rates, kind, m):.2f})" for m in MIXES),
        ]
        for kind, (_, body) in KINDS.items()
    ]
    about = (
        f"Histories a second in requests of {BATCH} over {CONNECTIONS} connections, medians of "
        f"{rounds} rounds of {seconds:g} s, and medians of the rounds' ratios to `native`. The "
        "figures are those of the mix where they are lower."
    )
    return f"{about}\n\n{table(['kind', 'bodies', *MIXES], rows)}"
