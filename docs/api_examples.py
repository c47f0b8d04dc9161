"""Records an answer of the service for every route and status, and writes docs/openapi.json.

python -m docs.api_examples
"""

import asyncio
import copy
import json
import re
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from service.app import create_app
from service.keys import add_key
from service.lifecycle import Service
from service.openapi import EXAMPLES
from service.protocols.table import errors_of
from service.settings import Settings

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "openapi.json"
SHIPPED = ROOT / "artifacts"

Example = dict[str, Any]
Statuses = dict[str, Example]
Examples = dict[str, Statuses]  # by method and route


@dataclass(frozen=True)
class Route:
    """One route, and requests for some of its statuses."""

    method: str
    path: str  # with {names}
    bodies: dict[int, Any] = field(default_factory=dict)  # by the status of their answer
    names: dict[str, str] = field(default_factory=dict)  # values of the path's parameters
    wrong_names: dict[str, str] = field(default_factory=dict)  # answered with 404

    @property
    def name(self) -> str:
        """The name of the route in the examples."""
        return f"{self.method} {self.path}"


HISTORIES = {"histories": [["frontpage", "news"], {"id": "visitor 7", "items": ["sports"]}, []]}
TENSORS = {
    "id": "7",
    "inputs": [
        {"name": "item_ids", "shape": [2, 2], "datatype": "INT64", "data": [[0, 1], [14, 0]]},
        {
            "name": "key_mask",
            "shape": [2, 2],
            "datatype": "BOOL",
            "data": [[True, True], [True, False]],
        },
    ],
}
BEYOND = {
    "inputs": [{"name": "item_ids", "shape": [1, 1], "datatype": "INT64", "data": [99]}],
}
MODEL, NO_MODEL = {"model_name": "news"}, {"model_name": "films"}
VERSION, NO_VERSION = MODEL | {"model_version": "1"}, MODEL | {"model_version": "7"}
OF_VERSION = "/v2/models/{model_name}/versions/{model_version}"

ROUTES = (
    Route("POST", "/v1/encode", {
        200: HISTORIES | {"encoding": "base64"},
        404: HISTORIES | {"model": "films"},
        422: {"histories": [["frontpage"], ["news", 1.5]]},
    }),
    Route("POST", "/v1/score", {
        200: HISTORIES | {"candidates": ["sports", "weather"]},
        404: HISTORIES | {"candidates": ["sports"], "version": "7"},
        422: HISTORIES | {"candidates": ["chess"], "unknown_items": "error"},
    }),
    Route("POST", "/v1/recommend", {
        200: HISTORIES | {"k": 3},
        404: HISTORIES | {"k": 3, "model": "films"},
        422: HISTORIES | {"k": 0},
    }),
    Route("POST", "/v1/similar", {
        200: {"items": ["news", "sports"], "k": 3},
        404: {"items": ["news"], "k": 3, "version": "7"},
        422: {"items": ["news"], "k": 0},
    }),
    Route("POST", "/v1/items/search", {
        200: {"items": ["news", "msn-sports"]},
        404: {"search": "sport", "model": "films"},
        422: {"search": "sport", "k": 0},
    }),
    Route("GET", "/v1/models"),
    Route("POST", "/v1/embeddings", {
        200: {"model": "news", "input": ["frontpage news", "sports"], "encoding_format": "base64"},
        404: {"model": "films", "input": "frontpage news"},
        422: {"model": "news", "input": "frontpage news", "dimensions": 32},
    }),
    Route("GET", "/v1/models/{model}", {}, {"model": "news:1"}, {"model": "films"}),
    Route("GET", "/v2"),
    Route("GET", "/v2/health/live"),
    Route("GET", "/v2/health/ready"),
    Route("GET", "/v2/models/stats"),
    Route("GET", "/v2/models/{model_name}", {}, MODEL, NO_MODEL),
    Route("GET", "/v2/models/{model_name}/ready", {}, MODEL, NO_MODEL),
    Route("GET", "/v2/models/{model_name}/stats", {}, MODEL, NO_MODEL),
    Route("GET", OF_VERSION, {}, VERSION, NO_VERSION),
    Route("GET", f"{OF_VERSION}/ready", {}, VERSION, NO_VERSION),
    Route("GET", f"{OF_VERSION}/stats", {}, VERSION, NO_VERSION),
    Route("POST", "/v2/models/{model_name}/infer", {200: TENSORS, 400: BEYOND}, MODEL, NO_MODEL),
    Route("POST", f"{OF_VERSION}/infer", {200: TENSORS, 400: BEYOND}, VERSION, NO_VERSION),
    Route("POST", "/v2/repository/index"),
    Route("GET", "/health/live"),
    Route("GET", "/health/ready"),
    Route("GET", "/metrics"),
)  # fmt: skip

NEWS, NO_NEWS = {"name": "news"}, {"name": "films"}
SHARES = {"weights": {"1": 1}}
SECOND = {"model_name": "articles"}
OTHER, WRONG = {"name": "articles"}, {"version": 1}
NEW_ITEM = {
    "model": "news",
    "items": [{"item": "podcasts", "vector": [0.125] * 64, "name": "Podcasts"}],
    "remove": ["bbs"],
}
NO_FEATURE = {"items": [{"item": "podcasts"}]}
NO_MODEL_ITEM = {"model": "films", "remove": ["bbs"]}
OPERATIONS = (  # for operators alone
    Route("POST", "/v1/models/{name}/load", {200: {"version": "1"}, 422: WRONG}, NEWS, NO_NEWS),
    Route("POST", "/v1/models/{name}/unload", {200: {}, 422: WRONG}, OTHER, NO_NEWS),
    Route("POST", "/v1/models/{name}/share", {200: SHARES, 422: WRONG}, NEWS, NO_NEWS),
    Route("POST", "/v1/items", {200: NEW_ITEM, 404: NO_MODEL_ITEM, 422: NO_FEATURE}),
    Route("POST", "/v2/repository/models/{model_name}/load", {}, SECOND, NO_MODEL),
    Route("POST", "/v2/repository/models/{model_name}/unload", {}, SECOND, NO_MODEL),
)  # fmt: skip
ALL = ROUTES + OPERATIONS
REFUSED = "version 2 is refused: it differs from its golden pairs"
NOT_QUEUED = "/v1/items/search"
LATE = "1 of 2 workers has not followed"


async def recorded() -> Examples:
    """The examples, by status in ascending order."""
    examples: Examples = {route.name: {} for route in ALL}
    asked = [route for route in ROUTES if 200 in route.bodies]
    async with answering(artifacts=SHIPPED) as client:
        for route in ROUTES:
            await record_usual(client, route, examples[route.name])
        client.headers["content-encoding"] = "br"
        await record_each(client, asked, examples)
        del client.headers["content-encoding"]
        await record_each(client, OPERATIONS, examples)
    async with answering(artifacts=SHIPPED, admin=True) as client:
        for route in OPERATIONS:
            await record_usual(client, route, examples[route.name])
    async with answering(artifacts=Path("no-such-folder"), admin=True) as client:
        await record_each(client, ALL, examples)
    async with with_keys() as client:
        await record_each(client, ALL, examples)
    async with answering(artifacts=SHIPPED, max_body_bytes=1, admin=True) as client:
        await record_each(client, [*asked, *OPERATIONS], examples)
    async with answering(artifacts=SHIPPED, max_queue_tokens=1) as client:
        for route in asked:
            if route.path == NOT_QUEUED:
                add_error(route, 429, "overloaded", "the queue is full", examples)
                continue
            first = record(client, route, {})
            await asyncio.gather(first, record(client, route, examples[route.name]))
    for route in asked:
        add_error(route, 500, "internal", "internal error", examples)
        add_error(route, 504, "deadline_exceeded", "no result within 10,000 ms", examples)
    examples["GET /health/live"]["503"] = stalled(examples["GET /health/ready"]["503"])
    message = examples["GET /health/live"]["503"]["response"]["error"]["message"]
    examples["GET /v2/health/live"]["400"] = {"response": {"error": message}}
    for route in OPERATIONS:
        add_error(
            route, 409, "conflict", "version 2 is refused: differs from its golden pairs", examples
        )
        add_error(route, 504, "deadline_exceeded", LATE, examples)
    return {name: dict(sorted(found.items())) for name, found in examples.items()}


def stalled(not_ready: Example) -> Example:
    """The answer of a service whose workers are stalled, which is not provoked here."""
    reason = "nothing was computed for 11 s"
    response = copy.deepcopy(not_ready["response"])
    response["error"] |= {"code": "not_live", "message": f"stalled: {reason}"}
    for worker in response["workers"]:
        worker |= {"state": "stalled", "reason": reason}
    return {"response": response}


@asynccontextmanager
async def with_keys() -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key of a service that wants one."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        add_key(keys, "shop")
        async with answering(artifacts=SHIPPED, keys_file=keys) as client:
            yield client


async def record_each(
    client: httpx.AsyncClient, routes: Iterable[Route], examples: Examples
) -> None:
    """Records an answer of each route."""
    for route in routes:
        await record(client, route, examples[route.name])


def add_error(route: Route, status: int, code: str, message: str, examples: Examples) -> None:
    """Adds an error that is not provoked here, in the shape of the route's protocol."""
    answer = errors_of({"path": route.path}).error_answer(status, code, message)
    examples[route.name][str(status)] = {"response": json.loads(answer.body)}


@asynccontextmanager
async def answering(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service in this process, when it has loaded what there is."""
    app = create_app(Settings(**settings))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://example") as client,
    ):
        service: Service = app.state.service
        while service.is_loading:  # however short the deadline is, which bounds a wait
            await service.loaded()
        yield client


async def record_usual(client: httpx.AsyncClient, route: Route, into: Statuses) -> None:
    """The answers of a service that is well."""
    for body in list(route.bodies.values()) or [None]:
        await record(client, route, into, body)
    if route.wrong_names:
        await record(client, replace(route, names=route.wrong_names), into)


async def record(
    client: httpx.AsyncClient, route: Route, into: Statuses, body: object = None
) -> None:
    """Records one answer, unless one with its status is there; `body`: by default the usual."""
    sent = body or route.bodies.get(200)
    path = route.path.format(**route.names)
    content = None if sent is None else json.dumps(sent)
    answer = await client.request(route.method, path, content=content)
    example: Example = {"response": shown(answer)}
    if body is not None:
        example["request"] = body
    if route.names:
        example["path"] = route.names
    into.setdefault(str(answer.status_code), example)


def shown(answer: httpx.Response) -> Any:
    """The body; of the metrics the one that always has the same value."""
    if answer.headers["content-type"] == "application/json":
        # A probe may wait with the query before.
        body = json.loads(re.sub(r"\d+ tokens wait", "6 tokens wait", answer.text))
        reports = body.get("workers") if isinstance(body, dict) else None
        for worker in reports if isinstance(reports, list) else []:
            worker |= {"process_id": 7, "since": "2026-01-01T00:00:00Z"}
        return body
    return "".join(
        line for line in answer.text.splitlines(keepends=True) if "persona_ready_workers" in line
    )


def main() -> None:
    """Writes both files."""
    EXAMPLES.write_text(as_json(asyncio.run(recorded())))
    DOCUMENT.write_text(as_json(create_app(Settings(artifacts=SHIPPED)).openapi()))


def as_json(value: object) -> str:
    """The document's text, as committed."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
