"""The document at `/openapi.json`, with examples, and the page at `/docs` that shows it.

`python -m docs.api_examples` records the examples from the service and writes docs/openapi.json.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Response
from fastapi.openapi.docs import get_swagger_ui_html

EXAMPLES = Path(__file__).with_name("openapi_examples.json")
SWAGGER_UI = Path(__file__).with_name("swagger_ui")  # its README says where it comes from
MEDIA_TYPES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
JSON = "application/json"

page = APIRouter(include_in_schema=False)


def complete(document: dict[str, Any]) -> None:
    """Adds the examples, and removes errors that FastAPI lists but the service never sends.

    Every request becomes an example of its operation, under the status of its answer.
    """
    examples = json.loads(EXAMPLES.read_text())
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            of_status = examples.get(f"{method.upper()} {path}", {})
            _drop_default_refusal(operation["responses"])
            _describe_retry(operation["responses"])
            for status in sorted(operation["responses"].keys() & of_status.keys()):
                _add(operation, status, of_status[status])
            _name_path_parameters(operation, of_status.get("200", {}).get("path", {}))
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _drop_default_refusal(responses: dict[str, Any]) -> None:
    if "HTTPValidationError" in json.dumps(responses.get("422", {})):
        del responses["422"]


def _describe_retry(responses: dict[str, Any]) -> None:
    if "429" in responses:
        responses["429"]["headers"] = {
            name: {"description": f"{unit} until another try", "schema": {"type": "integer"}}
            for name, unit in (("Retry-After", "seconds"), ("Retry-After-Ms", "milliseconds"))
        }


def _add(operation: dict[str, Any], status: str, example: dict[str, Any]) -> None:
    (content,) = (
        content
        for media_type, content in operation["responses"][status]["content"].items()
        if media_type != "application/octet-stream"
    )
    content["example"] = example["response"]
    if "request" in example:
        body = operation["requestBody"]["content"][JSON]
        summary = "answered" if status == "200" else f"answered with {status}"
        body.setdefault("examples", {})[status] = {"summary": summary, "value": example["request"]}


def _name_path_parameters(operation: dict[str, Any], values: dict[str, str]) -> None:
    for parameter in operation.get("parameters", []):
        if parameter["name"] in values:
            parameter["example"] = values[parameter["name"]]


@page.get("/docs")
async def docs() -> Response:
    """The document as a page."""
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Persona",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="data:,",
    )


@page.get("/docs/{name}")
async def asset(name: str) -> Response:
    """A file of the page."""
    if name not in MEDIA_TYPES:
        raise HTTPException(404)
    headers = {"content-encoding": "gzip", "cache-control": "max-age=86400"}
    return Response(_compressed(name), headers=headers, media_type=MEDIA_TYPES[name])


@cache
def _compressed(name: str) -> bytes:
    return (SWAGGER_UI / f"{name}.gz").read_bytes()
