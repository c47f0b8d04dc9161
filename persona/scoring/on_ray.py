"""Scores on a Ray cluster, or on one that is started on this machine for it."""

import os
import pickle
import socket
import subprocess
import sys
from concurrent.futures import Future
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read at the import below

import ray

from persona.cpus import cpu_limit
from persona.scoring.errors import InternalError, WorkerEnded, first_line
from persona.scoring.in_process import EngineScorer
from persona.scoring.parts import Part
from persona.scoring.scorer import ModelFacts, Plan, ScoredPart

LOCAL = "local"
RETRIES = 5  # of a part whose worker or node is lost
PARTS_PER_CORE = 2
CONNECT_SECONDS = 20
JOIN_SECONDS = 60
JOIN = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level='error')"
HTTP2_SETTINGS = b"\x04"  # type of the first frame of either side
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0" + HTTP2_SETTINGS + bytes(5)


class RayScorer:
    """Scores with the artifact in a folder, which every node of the cluster has at the same place.

    Parts travel to tasks and back through Ray: only this process reads the input and writes the
    output. A task whose node is lost runs again on another one.
    """

    def __init__(self, artifact: Path | str, address: str = LOCAL) -> None:
        """Connects to nothing before `start`.

        Args:
            artifact: a folder of models, of one model, or of one version.
            address: of a cluster, `auto` for the one of this machine, `local` for a new one.
        """
        self._artifact, self._address = str(Path(artifact).resolve()), address
        self.at_once = 1

    def start(self, plan: Plan) -> ModelFacts:
        """As in `Scorer`."""
        _check_reachable(self._address)
        new: dict[str, Any] = {"num_cpus": cpu_limit(), "include_dashboard": False}
        try:
            ray.init(
                self._address,
                log_to_driver=False,
                logging_level="error",
                **(new if self._address == LOCAL else {}),
            )
        except ConnectionError as error:
            raise WorkerEnded(f"no Ray cluster at '{self._address}': {error}") from error
        self._plan = pickle.dumps(plan)
        self._task = ray.remote(num_cpus=1, max_retries=RETRIES)(_score)
        self.at_once = PARTS_PER_CORE * max(1, int(ray.cluster_resources().get("CPU", 1)))
        facts = self._submit(None).result()
        if isinstance(facts, Exception):
            raise facts
        found: ModelFacts = facts
        return found

    def submit(self, part: Part) -> "Future[ScoredPart | Exception]":
        """As in `Scorer`."""
        return self._submit(part)

    def _submit(self, part: Part | None) -> "Future[Any]":
        ended: Future[Any] = Future()
        task = self._task.remote(self._artifact, self._plan, part)
        task.future().add_done_callback(partial(_pass_on, ended))
        return ended

    def close(self) -> None:
        """As in `Scorer`."""
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Finds out whether Ray answers at the address; Ray itself would try for minutes.

    Raises:
        WorkerEnded: nothing listens at the address, or it is something else.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    if address not in {LOCAL, "auto"}:
        _greet(address)
        _try_to_join(address)


def _greet(address: str) -> None:
    """Asks for an answer in HTTP/2, which Ray speaks."""
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        with (
            socket.create_connection((place.hostname, place.port), CONNECT_SECONDS) as connection,
            connection.makefile("rb") as answer,
        ):
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            connection.sendall(HTTP2_GREETING)
            if answer.read(9)[3:4] != HTTP2_SETTINGS:
                raise ConnectionError("what listens there is not Ray")
    except (OSError, ValueError) as error:
        raise WorkerEnded(f"no Ray cluster at '{address}': {error}") from error


def _try_to_join(address: str) -> None:
    """Joins the cluster in another process: in this one nothing could end the attempt."""
    try:
        subprocess.run(  # noqa: S603  # our own program
            [sys.executable, "-c", JOIN, address],
            timeout=JOIN_SECONDS,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
            text=True,
        )
    except subprocess.TimeoutExpired as error:
        reason = f"what listens there did not answer as Ray does in {JOIN_SECONDS} s"
        raise WorkerEnded(f"no Ray cluster at '{address}': {reason}") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().rpartition("\n")[2]
        raise WorkerEnded(f"no Ray cluster at '{address}': {reason}") from error


@cache
def _engine(artifact: str, plan: bytes) -> EngineScorer:
    """The engine of this process of the cluster."""
    return EngineScorer(artifact, pickle.loads(plan))  # noqa: S301  # from our own program


def _score(artifact: str, plan: bytes, part: Part | None) -> Any:
    """A scored part, the facts of the model where there is no part, or an error."""
    try:
        engine = _engine(artifact, plan)
    except Exception as error:  # noqa: BLE001  # the border of a process; the other side raises it
        return InternalError.of(error)
    return engine.facts if part is None else engine.score(part)


def _pass_on(ended: "Future[Any]", task: "Future[Any]") -> None:
    """Ends one future as another one did, with an error of Ray as the result."""
    error = task.exception()
    if error is None:
        ended.set_result(task.result())
    else:
        ended.set_result(WorkerEnded(f"a Ray task failed: {first_line(error)}"))
