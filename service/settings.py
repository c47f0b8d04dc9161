"""The service's settings, read from PERSONA_* variables; docs/configuration.md explains each."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from persona.engine import Limits


class Settings(BaseSettings):
    """The service's settings; each field is the variable PERSONA_<FIELD>."""

    model_config = SettingsConfigDict(env_prefix="PERSONA_", frozen=True)

    artifacts: Path = Path("artifacts")  # folder of <name>/<version>/
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int | None = Field(default=None, ge=1)  # None: one per core that we may use
    max_body_bytes: int = Field(default=8 * 2**20, ge=1)
    max_histories: int = Field(default=1024, ge=1)  # a request
    max_history_items: int = Field(default=10_000, ge=1)  # per history, before truncation
    max_items: int = Field(default=262_144, ge=1)  # clicks and candidates of a request
    max_attention_values: int = Field(default=2_000_000, ge=1)  # numbers in a response
    max_scores: int = Field(default=1_000_000, ge=1)  # histories x candidates of a request
    max_k: int = Field(default=1000, ge=1)  # recommended items per history
    max_recommendations: int = Field(default=100_000, ge=1)  # histories x k of a request
    max_batch_tokens: int = Field(default=2048, ge=1)  # per run of the graph, including padding
    max_queue_tokens: int = Field(default=262_144, ge=1)  # waiting, per worker and model
    kept_megabytes: float = Field(default=0.0, ge=0.0)  # of recent histories, per worker and model
    kept_clicks: int = Field(default=8, ge=1)  # of a history that is kept, at least
    kept_seconds: float = Field(
        default=900.0, gt=0.0
    )  # that anything of a history is kept, at most
    deadline_ms: int = Field(default=10_000, ge=1)  # from the body's last byte to the result
    max_connections: int = Field(default=4096, ge=1)  # per worker
    max_headers: int = Field(default=100, ge=1)  # a request
    max_header_bytes: int = Field(default=32_768, ge=64)  # all headers and the URL
    max_pipelined_requests: int = Field(default=128, ge=1)  # waiting on one connection
    max_held_bytes: int = Field(default=64 * 2**20, ge=1)  # unfinished bodies, unread answers
    max_discarded_bytes: int = Field(default=32 * 2**20, ge=0)  # of a body that was refused
    header_seconds: float = Field(default=10.0, gt=0)  # for a request's head, once connected
    body_seconds: float = Field(default=30.0, gt=0)  # for a request's body, after its head
    unread_seconds: float = Field(default=30.0, gt=0)  # for each 64 KiB that a client reads
    keep_alive_seconds: int = Field(default=5, ge=1)  # between two requests of a connection
    closing_seconds: float = Field(default=5.0, gt=0)  # for the client to read the last answer
    drain_seconds: float = Field(default=0.0, ge=0.0)  # not ready, still answering, before exit
    watch_seconds: float = Field(default=2.0, ge=0.0)  # between checks of the artifacts; 0: never
    max_quality_loss: float = Field(default=0.05, ge=0.0, le=1.0)  # of a new version; 1: any
    max_copy_bytes: int = Field(default=2**30, ge=0)  # larger artifacts are mapped in place
    state_folder: Path | None = None  # None: a temporary one
    playground: bool = True  # the page at `/`
    admin: bool = False  # this machine may change what is served
    trusted_keys: Annotated[tuple[Path, ...], NoDecode] = ()  # none: artifacts need no signature
    keys_file: Path | None = None  # None: requests need no key
    safe_headers: bool = False  # for browsers and caches, on every answer
    request_ids: bool = False  # taken from requests or created, and returned
    server_timing: bool = False  # a header with the time of each stage
    access_log: bool = False  # a line per request
    log_format: Literal["text", "json"] = "text"
    traces: bool = False  # to OpenTelemetry; the OTEL_* variables say where
    hang_seconds: float = Field(default=10.0, gt=1.0)  # without a report, then replaced
    start_seconds: float = Field(default=120.0, gt=1.0)  # until a worker is ready, then replaced
    max_failed_starts: int = Field(
        default=5, ge=1
    )  # in a row while no worker is ready, then give up
    log_level: Literal["critical", "error", "warning", "info", "debug"] = "info"

    @field_validator("trusted_keys", mode="before")
    @classmethod
    def _paths(cls, value: object) -> object:
        return tuple(value.split(os.pathsep)) if isinstance(value, str) and value else value or ()

    def limits(self) -> Limits:
        """The settings that the engine enforces."""
        return Limits(**{field.name: getattr(self, field.name) for field in fields(Limits)})
