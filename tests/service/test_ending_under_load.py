"""SIGTERM while clients send: what was accepted is answered."""

import http.client
import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from service.lifecycle import LAST_ANSWERS_S
from tests.service.processes import process, wait_until_ready
from tests.serving import wait_until

CLIENTS = 16
BODY = json.dumps({"histories": [[f"item {n % 20}" for n in range(12)]] * 64})


class Clients:
    """Clients that send one request after the other, and connect again when they are told to."""

    def __init__(self, url: str) -> None:
        self._address = url.removeprefix("http://")
        self.outcomes: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        """Until nobody listens any more."""
        while True:
            connection = http.client.HTTPConnection(self._address, timeout=60)
            try:
                connection.connect()
            except ConnectionRefusedError:
                self.outcomes["refused"] += 1
                return
            while self._is_answered(connection):
                pass
            connection.close()

    def _is_answered(self, connection: http.client.HTTPConnection) -> bool:
        """Sends a request; whether there is an answer, and another one may follow."""
        free = time.monotonic()
        paused = 0.0
        try:
            connection.request("POST", "/v1/encode", BODY)
            paused = time.monotonic() - free
            answer = connection.getresponse()
            users = json.loads(answer.read()).get("users", ())
        except (OSError, http.client.HTTPException) as error:
            # On a busy machine: the service may close a connection on which nothing comes.
            late = paused > LAST_ANSWERS_S / 2
            self.outcomes["late" if late else f"lost: {error!r}"] += 1
            return False
        complete = answer.status == 200 and len(users) == 64
        self.outcomes["answered" if complete else f"lost: {answer.status}"] += 1
        return answer.getheader("connection") != "close"


@pytest.mark.parametrize("workers", [1, 2])
def test_no_accepted_request_is_lost_when_the_service_ends_under_load(
    tiny_artifacts: Path, workers: int
) -> None:
    options = ("--artifacts", str(tiny_artifacts), "--workers", str(workers))
    with process(*options) as (running, url):
        wait_until_ready(running, url, workers)
        clients = Clients(url)
        wait_until(lambda: clients.outcomes["answered"] > 200)
        running.terminate()
        clients.join()
        assert running.wait(timeout=60) == 0
    assert clients.outcomes.keys() - {"late"} == {"answered", "refused"}
    assert clients.outcomes["refused"] == CLIENTS
