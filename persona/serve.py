"""`persona serve`: answers HTTP requests from the artifacts of a folder."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import ValidationError
    from uvicorn import Config

HTTP = "service.direct_protocol:DirectProtocol"
Artifacts = Annotated[
    Path | None, typer.Option(help="Folder of <name>/<version>/.  [default: artifacts]")
]
Host = Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.  [default: 8000]")]
Workers = Annotated[
    int | None, typer.Option(help="Worker processes.  [default: one a core that we may use]")
]
LogLevel = Annotated[
    str | None,
    typer.Option(help="critical, error, warning, info or debug.  [default: info]"),
]


def serve(
    artifacts: Artifacts = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
    log_level: LogLevel = None,
) -> None:
    """Serve the artifacts of a folder over HTTP.

    Every option is also a variable, `PERSONA_PORT` for `--port`, and there are more of those:
    limits, batching, deadlines; see docs/configuration.md. An option goes before its variable.

        persona serve --artifacts artifacts --port 8000
    """
    options = {
        "ARTIFACTS": artifacts,
        "HOST": host,
        "PORT": port,
        "WORKERS": workers,
        "LOG_LEVEL": log_level,
    }
    for name, value in options.items():
        if value is not None:
            os.environ[f"PERSONA_{name}"] = str(value)  # where the workers read it too
    _run()


def _run() -> None:
    import uvicorn
    from pydantic import ValidationError

    from service.settings import Settings, cpu_limit

    try:
        settings = Settings()
    except ValidationError as error:
        raise typer.BadParameter(_explain(error)) from None
    workers = settings.workers or cpu_limit()
    _announce(settings.host, settings.port, workers, settings.artifacts)
    with _shared_metrics(workers):
        config = uvicorn.Config(
            "service.app:create_app",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=workers,
            log_level=settings.log_level,
            loop="uvloop",
            http=HTTP,
            ws="none",
            log_config=_log_config(settings.log_level),
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody asks who calls, and each request would pay for it
            timeout_graceful_shutdown=max(1, -(-settings.deadline_ms // 1000)),
        )
        _run_workers(config) if workers > 1 else _run_here(config)


def _run_workers(config: "Config") -> None:
    from uvicorn.supervisors import Multiprocess

    from service.listening import a_socket_for_each

    Multiprocess(config, [a_socket_for_each(config.bind_socket())]).run()


def _run_here(config: "Config") -> None:
    from uvicorn import Server

    server = Server(config)
    with suppress(KeyboardInterrupt):  # it comes again when the server has ended
        server.run()
    if not server.started:
        raise typer.Exit(1)


def _explain(error: "ValidationError") -> str:
    return "; ".join(
        f"PERSONA_{'_'.join(map(str, detail['loc'])).upper()}={detail['input']}: {detail['msg']}"
        for detail in error.errors()
    )


def _announce(host: str, port: int, workers: int, artifacts: Path) -> None:
    from rich.console import Console

    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"Serving {artifacts} on {address}, {workers} workers. Try:", markup=False)
    console.print(
        f"    curl {address}/v1/models\n"
        f"    curl {address}/v1/encode -d '{{\"histories\": [[]]}}'\n"
        f"    {address}/docs",
        markup=False,
    )


def _log_config(level: str) -> dict[str, Any]:
    """Uvicorn's own, and the service's messages in the same form."""
    from uvicorn.config import LOGGING_CONFIG

    ours = {"handlers": ["default"], "level": level.upper(), "propagate": False}
    return {**LOGGING_CONFIG, "loggers": {**LOGGING_CONFIG["loggers"], "service": ours}}


@contextmanager
def _shared_metrics(workers: int) -> Iterator[None]:
    """A folder in memory where the workers add up their metrics; one worker needs none."""
    if workers == 1:
        yield
        return
    memory = Path("/dev/shm")  # noqa: S108  # there where /tmp is read-only; mkdtemp names safely
    parent = memory if os.access(memory, os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="persona-metrics-", dir=parent)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
