"""Changes the version of a running service, and checks its answers; in a process of its own."""

import base64
import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers import persona_body

PROBE = [[1, 2, 3], [4, 5, 6, 7, 8]]
PROBE_EVERY_S = 0.05
Expected = dict[int, list[str]]  # embeddings, by the version's parity


@dataclass
class Outcome:
    """The results of some changes."""

    probes: int = 0
    wrong: int = 0  # probes whose answer is not the named version's, changes that did not come
    seconds: float = 0.0
    expected: Expected = field(default_factory=dict)


def apart() -> ProcessPoolExecutor:
    """The process: threads in that of the load would make its latencies worse."""
    return ProcessPoolExecutor(1, get_context("spawn"))


def change(
    port: int, model: Path, coming: Sequence[Path], seconds: float, expected: Expected
) -> Outcome:
    """Renames one version after the other into a model's folder, and deletes its predecessor.

    Args:
        port: of the service on this machine.
        model: the folder of the versions.
        coming: the folders of the versions to come.
        seconds: to go on probing where there are no changes.
        expected: what earlier calls have found.
    """
    outcome, over = Outcome(expected=dict(expected)), threading.Event()
    probing = threading.Thread(target=_probe, args=(port, outcome, over))
    since = time.perf_counter()
    probing.start()
    try:
        for folder in coming:
            old = next(path for path in model.iterdir() if path.name.isdecimal())
            folder.rename(model / folder.name)
            state = _post(port, f"/v1/models/{model.name}/load", b"{}")
            outcome.wrong += state["shares"] != {folder.name: 1.0}
            shutil.rmtree(old)
        if not coming:
            time.sleep(seconds)
    finally:
        over.set()
        probing.join()
    outcome.seconds = time.perf_counter() - since
    return outcome


def _probe(port: int, outcome: Outcome, over: threading.Event) -> None:
    body = persona_body(PROBE, encoding="base64")
    while not over.wait(PROBE_EVERY_S):
        answer = _post(port, "/v1/encode", body)
        found = [user["embedding"] for user in answer["users"]]
        expected = outcome.expected.setdefault(int(answer["version"]) % 2, found)
        outcome.wrong += not _close(found, expected)
        outcome.probes += 1


def _post(port: int, path: str, body: bytes) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body)
    with urllib.request.urlopen(request, timeout=120) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _close(found: list[str], expected: list[str]) -> bool:
    """Whether embeddings agree except for the last bits, which depend on the batch."""
    one, other = (
        np.frombuffer(b"".join(map(base64.b64decode, texts)), "<f4") for texts in (found, expected)
    )
    return bool(np.allclose(one, other, atol=1e-4))
