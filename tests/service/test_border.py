"""What is told about requests: ids, timings, log lines and traces, without histories or keys."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.keys import add_key
from service.log_format import JsonFormatter
from service.tracing import Tracer
from tests.service.hostile.wire import Wire, first_reply, request
from tests.serving import serving

BODY = {"histories": [["item 1", "a secret"]]}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def client(tiny_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(tiny_artifacts, request_ids=True, server_timing=True, safe_headers=True) as client:
        yield client


def test_an_id_comes_back(client: httpx.Client) -> None:
    answer = client.post("/v1/encode", json=BODY, headers={"x-request-id": "order-7/a"})
    assert answer.headers["x-request-id"] == "order-7/a"


@pytest.mark.parametrize("bad", ["", "two words", "x" * 129, "{}", "caf\u00e9".encode()])
def test_an_id_that_is_not_fit_for_a_log_is_replaced(client: httpx.Client, bad: str) -> None:
    answer = client.get("/health/live", headers={"x-request-id": bad})
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", answer.headers["x-request-id"])


def test_every_request_gets_an_id_of_its_own(client: httpx.Client) -> None:
    ids = {client.get("/health/live").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_server_timing_names_the_stages_in_order(client: httpx.Client) -> None:
    told = client.post("/v1/encode", json=BODY).headers["server-timing"]
    stages = re.findall(r"(\w+);dur=(\d+\.\d\d)", told)
    assert [stage for stage, _ in stages] == ["read", "parse", "queue", "compute", "render"]
    assert float(dict(stages)["compute"]) > 0


def test_a_refusal_has_an_id_too(client: httpx.Client) -> None:
    answer = client.post("/v1/encode", content=b"{")
    assert answer.status_code == 422
    assert answer.headers["x-request-id"]


REFUSED = {
    "a bad request line": (b"what is this\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\nx-request-id: mine\r\n\r\n", 400),
    "too many headers": (
        b"GET / HTTP/1.1\r\nx-request-id: mine\r\n" + b"a: b\r\n" * 101 + b"\r\n",
        431,
    ),
}


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED)
def test_what_the_connection_refuses_has_an_id_too(
    client: httpx.Client, sent: bytes, status: int
) -> None:
    with closing(Wire(client.base_url.port or 0)) as wire:
        wire.send(sent)
        reply = wire.reply()
    assert reply.status == status
    expected = "mine" if b"mine" in sent else "[0-9a-f]{12}-[0-9a-f]+"
    assert re.fullmatch(expected, reply.headers["x-request-id"])
    assert reply.headers["cache-control"] == "no-store"


def test_a_connection_too_many_has_an_id_and_a_line(tiny_artifacts: Path, lines: list[str]) -> None:
    with serving(tiny_artifacts, max_connections=1, request_ids=True, access_log=True) as client:
        port = client.base_url.port or 0
        with closing(Wire(port)) as busy:
            busy.send(request(b"{")[:-1])
            reply = first_reply(port, [])
    (line,) = (found for found in map(json.loads, lines) if found["status"] == 429)
    assert line["code"] == "overloaded"
    assert line["request_id"] == reply.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/models", "/nowhere"])
def test_every_answer_has_safe_headers(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


class Lines(logging.Handler):
    """Keeps what would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the access log writes as JSON."""
    handler, logger = Lines(), logging.getLogger("service.access")
    level, logger.level = logger.level, logging.INFO
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_a_line_tells_of_a_request_but_not_what_it_holds(
    tiny_artifacts: Path, tmp_path: Path, lines: list[str]
) -> None:
    key = add_key(tmp_path / "keys.json", "shop")
    with serving(tiny_artifacts, access_log=True, keys_file=tmp_path / "keys.json") as client:
        client.post("/v1/encode?a=secret", json=BODY, headers={"x-api-key": key})
    line = json.loads(lines[-1])
    assert (line["path"], line["status"], line["key"]) == ("/v1/encode", 200, "shop")
    assert (line["model"], line["version"]) == ("tiny", "1")
    assert "secret" not in lines[-1]
    assert key not in lines[-1]


def test_a_json_line_has_no_message_of_an_error() -> None:
    error = ValueError("item 1")
    record = logging.LogRecord(
        "service", logging.ERROR, __file__, 1, "failed", None, (type(error), error, None)
    )
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["message"]) == ("error", "failed")
    assert "item 1" not in line["error"]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Where the spans of a service that traces end."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(Tracer, "of_environment", lambda: Tracer(provider))
    return exporter


def posted(spans: InMemorySpanExporter, tiny_artifacts: Path) -> list[ReadableSpan]:
    """The spans of one request, in the order in which they ended."""
    with serving(tiny_artifacts, traces=True) as client:
        spans.clear()
        client.post("/v1/encode", json=BODY, headers={"traceparent": PARENT})
    return list(spans.get_finished_spans())


def test_a_trace_has_a_span_for_each_stage(
    tiny_artifacts: Path, spans: InMemorySpanExporter
) -> None:
    *stages, request = posted(spans, tiny_artifacts)
    assert [one.name for one in stages] == ["read", "parse", "queue", "compute", "render"]
    assert request.name == "POST /v1/encode"
    assert {one.parent and one.parent.span_id for one in stages} == {request.context.span_id}
    ends = [one.end_time for one in stages]
    assert ends == sorted(ends, key=lambda end: end or 0)


def test_a_trace_continues_the_callers(tiny_artifacts: Path, spans: InMemorySpanExporter) -> None:
    request = posted(spans, tiny_artifacts)[-1]
    assert f"{request.context.trace_id:032x}" == PARENT.split("-")[1]
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT.split("-")[2]


def test_a_trace_holds_no_history(tiny_artifacts: Path, spans: InMemorySpanExporter) -> None:
    told = " ".join(one.to_json() for one in posted(spans, tiny_artifacts))
    assert '"persona.model": "tiny"' in told
    assert "item 1" not in told
    assert "secret" not in told
