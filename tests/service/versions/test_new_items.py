"""New items of a real service of two workers: under load, and after all workers were killed."""

import os
import signal
import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.conftest import TINY
from tests.service.processes import process, wait_until_ready
from tests.serving import wait_until

pytestmark = pytest.mark.slow  # workers start and end for seconds each


def unknown(url: str, item: str) -> set[int]:
    """What workers say of an item; each connection may reach another worker."""
    body = {"histories": [[item]]}
    answers = [httpx.post(f"{url}/v1/encode", json=body).json() for _ in range(20)]
    return {answer["users"][0]["unknown"] for answer in answers}


@pytest.mark.timeout(900)
def test_items_are_visible_to_all_workers_at_once_and_outlive_them(
    shop_artifacts: Path, tmp_path: Path
) -> None:
    answered: Counter[int] = Counter()
    over = threading.Event()

    def ask(url: str) -> None:
        while not over.is_set():
            body = {"histories": [["item 1"]]}
            answered[httpx.post(f"{url}/v1/recommend", json=body).status_code] += 1

    options = ("--artifacts", str(shop_artifacts), "--workers", "2")
    settings = {"PERSONA_ADMIN": "1", "PERSONA_STATE_FOLDER": str(tmp_path / "state")}
    with process(*options, **settings) as (running, url):
        first = wait_until_ready(running, url, 2)
        asking = threading.Thread(target=ask, args=(url,))
        asking.start()
        try:
            for number in range(3):
                item = {"item": f"new {number}", "vector": [0.1] * TINY.width}
                answer = httpx.post(f"{url}/v1/items", json={"items": [item]}, timeout=300)
                assert (answer.status_code, answer.json()["workers"]) == (200, 2), answer.text
                assert unknown(url, f"new {number}") == {0}
        finally:
            over.set()
            asking.join()
        assert set(answered) == {200}
        for worker in first:
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: len(wait_until_ready(running, url, 2) - first) == 2)
        assert unknown(url, "new 0") == unknown(url, "new 2") == {0}
