"""Every server of the comparison: its environment, its command, and a request in its protocol."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from bench import encoders
from bench.loads import Rows

FOLDER = Path(__file__).resolve().parent / "servers"
# The same as ours, so that servers are compared and not their runtimes.
RUNTIME = tuple(f"{name}=={version(name)}" for name in ("onnxruntime", "orjson"))

Body = Callable[[Rows], bytes]


def _plain_body(histories: Rows) -> bytes:
    return json.dumps({"histories": histories}).encode()


def _tensor_body(histories: Rows) -> bytes:
    """Open Inference Protocol, one history: rows of unlike lengths are no tensor."""
    (history,) = histories
    items = history or [0]
    tensor = {"name": "item_ids", "shape": [1, len(items)], "datatype": "INT64", "data": items}
    return json.dumps({"inputs": [tensor]}).encode()


def persona_body(histories: Rows, **fields: str) -> bytes:
    """A request with the catalogue's ids for the rows."""
    named = [[f"n{row}" for row in history] for history in histories]
    return json.dumps({"histories": named, **fields}).encode()


@dataclass(frozen=True)
class Server:
    """One contender; `{port}` in its command and variables is filled in."""

    name: str
    command: tuple[str, ...]  # the first word is a program of its environment
    path: str
    body: Body = _plain_body
    requirements: tuple[str, ...] = ()  # none: our own environment
    variables: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)  # of every request
    ready: str = ""  # what the answer of /metrics holds when all workers are ready


UVICORN = "--workers 2 --port {port} --loop uvloop --http httptools --ws none --lifespan off"
NAIVE = Server(
    "naive FastAPI",
    ("uvicorn", "naive_fastapi:app", *UVICORN.split(), "--no-access-log", "--log-level", "error"),
    "/encode",
    variables={"BENCH_THREADS": "0"},
)
REFERENCE = Server("reference loop", ("python", "reference_loop.py"), "/")
MOSEC = Server("mosec", ("python", "with_mosec.py"), "/inference", requirements=("mosec==0.9.8",))
LITSERVE = Server(
    "LitServe", ("python", "with_litserve.py"), "/predict", requirements=("litserve==0.2.19",)
)
LITSERVE_UNSET = replace(LITSERVE, name="LitServe, threads unset", variables={"BENCH_THREADS": "0"})
MOSEC_BATCHING = replace(MOSEC, name="mosec, batches of 32", variables={"BENCH_BATCH": "32"})
OTHERS = (
    LITSERVE,
    LITSERVE_UNSET,
    Server(
        "BentoML",
        ("bentoml", "serve", "with_bentoml:Encode", "--host", "127.0.0.1", "--port", "{port}"),
        "/encode",
        requirements=("bentoml==1.4.39",),
        variables={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    Server(
        "MLServer",
        ("python", "with_mlserver.py"),
        "/v2/models/encoder/infer",
        _tensor_body,
        requirements=("mlserver==1.7.1",),
    ),
    Server(
        "pytriton",
        ("python", "with_pytriton.py"),
        "/v2/models/encoder/infer",
        _tensor_body,
        requirements=("nvidia-pytriton==0.7.0",),
        variables={"LD_LIBRARY_PATH": str(Path(sys.base_prefix) / "lib")},
    ),
)


def without_subnormals(server: Server) -> Server:
    """The same with a setting that Persona makes and nobody else does."""
    name = f"{server.name}, subnormals 0"
    return replace(server, name=name, variables={**server.variables, "BENCH_SUBNORMALS": "0"})


PEERS = (NAIVE, MOSEC, MOSEC_BATCHING, *OTHERS)
WITHOUT_SUBNORMALS = tuple(map(without_subnormals, (REFERENCE, MOSEC, LITSERVE)))


def persona(
    artifacts: Path | None = None, workers: int = 2, body: Body = persona_body, **settings: str
) -> Server:
    """Persona with two workers, as `persona serve` starts it."""
    folder = artifacts or encoders.artifacts()
    options = f"serve --artifacts {folder} --port {{port}} --workers {workers} --log-level error"
    return Server(
        "Persona",
        ("persona", *options.split()),
        "/v1/encode",
        body,
        variables={f"PERSONA_{name.upper()}": value for name, value in settings.items()},
        ready=f"\npersona_ready_workers {float(workers)}\n",
    )


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    server: Server
    port: int
    group: int  # its process group

    def processes(self) -> list[int]:
        """The ids of all that has not ended, of its group and of what descends from it."""
        found = []
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, parent, group = path.read_text().rpartition(") ")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):  # ended since
                continue
            number = int(path.parent.name)
            ours = int(group) == self.group != number
            parents[number] = self.group if ours else int(parent)
            if state != "Z":
                found.append(number)
        return [number for number in found if self.group in _ancestors(number, parents)]

    def get(self, path: str) -> str:
        """The body of a GET."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    def post(self, histories: Rows, timeout_s: float = 120) -> bytes:
        """The body of the answer for these histories."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{self.server.path}",
            self.server.body(histories),
            {"Content-Type": "application/json", **self.server.headers},
        )
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            content: bytes = answer.read()
            return content


def _ancestors(number: int, parents: Mapping[int, int]) -> Iterator[int]:
    """A process, its parent, and so on."""
    while number in parents:
        yield number
        number = parents[number]


@contextmanager
def running(server: Server, seconds_to_start: float = 300) -> Iterator[Running]:
    """Starts the server in a process group of its own, and ends that group afterwards.

    Raises:
        RuntimeError: it ended, or does not answer in time; the message holds its last words.
    """
    port = free_port()
    program = environment(server.requirements) / "bin" / server.command[0]
    command = [str(program), *(word.format(port=port) for word in server.command[1:])]
    log = encoders.CACHE / f"{server.name.replace(' ', '-')}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=FOLDER,
            env=_variables(server, port),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = Running(server, port, process.pid)
    try:
        _wait(started, process, seconds_to_start, log)
        yield started
    finally:
        _end(process, started)


def _variables(server: Server, port: int) -> dict[str, str]:
    fixed = {
        "BENCH_PORT": str(port),
        "BENCH_ONNX": str(encoders.plain_onnx()),
        "ORT_DISABLE_TELEMETRY": "1",
        # Two processes on two cores: threads inside NumPy would only get in each other's way.
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **fixed, **server.variables}


def _wait(server: Running, process: subprocess.Popen[bytes], seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not _answers(server):
        if process.poll() is not None or time.monotonic() > deadline:
            words = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{server.server.name} does not answer:\n{words}")
        time.sleep(0.1)


def _answers(server: Running) -> bool:
    try:
        if server.server.ready and server.server.ready not in server.get("/metrics"):
            return False
        server.post([[1, 2, 3]], timeout_s=2)
    except (OSError, urllib.error.HTTPError):  # not listening yet, or still loading
        return False
    return True


def _end(process: subprocess.Popen[bytes], server: Running) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 10
        with suppress(ProcessLookupError):
            os.killpg(server.group, number)
        while server.processes() and time.monotonic() < deadline:
            process.poll()
            time.sleep(0.05)
    process.wait()


def environment(requirements: tuple[str, ...]) -> Path:
    """A virtual environment with these packages, made once; without any, our own."""
    if not requirements:
        return Path(sys.prefix)
    wanted = (*requirements, *RUNTIME)
    digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:12]
    folder = encoders.CACHE / "environments" / f"{requirements[0].partition('=')[0]}-{digest}"
    if not (folder / "complete").exists():
        venv.create(folder, clear=True, with_pip=True)
        pip = str(folder / "bin" / "pip")
        options = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([pip, "install", *options, *wanted], check=True)
        (folder / "complete").touch()
    return folder


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
