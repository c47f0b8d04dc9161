"""`persona serve`: serves the artifacts of a folder over HTTP."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

Artifacts = Annotated[
    Path | None, typer.Option(help="Folder with NAME/VERSION/ folders.  [default: artifacts]")
]
Host = Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.  [default: 8000]")]
Workers = Annotated[int | None, typer.Option(help="Worker processes.  [default: one per core]")]
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

    Every option is also an environment variable, such as `PERSONA_PORT` for `--port`; an option
    takes precedence. More variables set limits, batching and deadlines: see docs/configuration.md.

        persona serve --artifacts artifacts --port 8000
    """
    from pydantic import ValidationError

    from persona.artifact import find_artifacts
    from persona.cpus import cpu_limit
    from service.keys import read_keys
    from service.settings import Settings
    from service.supervisor import run
    from service.workers import hold_port

    options: dict[str, Any] = {
        "artifacts": artifacts,
        "host": host,
        "port": port,
        "workers": workers,
        "log_level": log_level,
    }
    try:
        settings = Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        problems = (
            f"PERSONA_{'_'.join(map(str, detail['loc'])).upper()}={detail['input']}: "
            f"{detail['msg']}"
            for detail in error.errors()
        )
        raise typer.BadParameter("; ".join(problems)) from None
    find_artifacts(settings.artifacts)  # fails before the start if there is nothing to serve
    if settings.keys_file is not None:
        read_keys(settings.keys_file)  # or if the keys cannot be read
    n_workers = settings.workers or cpu_limit()
    with hold_port(settings.host, settings.port) as held:
        port = held.getsockname()[1]
        _announce(settings.artifacts, settings.host, port, n_workers)
        run(settings, n_workers, held)


def _announce(artifacts: Path, host: str, port: int, workers: int) -> None:
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    number = f"{workers} workers" if workers > 1 else "1 worker"
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"Serving {artifacts} on {address}, {number}. Try:\n"
        f"    curl {address}/v1/models\n"
        f"    curl {address}/v1/encode -d '{{\"histories\": [[]]}}'\n"
        f"    {address}/docs",
        markup=False,
    )
