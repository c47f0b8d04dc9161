"""Formats log lines: like uvicorn, or as one JSON object per line."""

import logging
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from uvicorn.config import LOGGING_CONFIG

from service.logs import frames
from service.visit import current


class JsonFormatter(logging.Formatter):
    """One JSON object per line, with the id of the current request."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; for errors, it has places and types, but no messages."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if (visit := current()) is not None:
            line["request_id"] = visit.request_id
        line |= getattr(record, "facts", {})
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = frames(record.exc_info[1])
        return orjson.dumps(line).decode()


def log_config(level: str, form: Literal["text", "json"]) -> dict[str, Any]:
    """The log configuration: uvicorn's, with the service's messages in the same form."""
    config = deepcopy(LOGGING_CONFIG)
    config["loggers"]["service"] = {
        "handlers": ["default"],
        "level": level.upper(),
        "propagate": False,
    }
    # The access log has its own setting, independent of the level.
    config["loggers"]["service.access"] = {"level": "INFO"}
    if form == "json":
        for formatter in config["formatters"]:
            config["formatters"][formatter] = {"()": JsonFormatter}
    return config
