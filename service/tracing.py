"""Traces of requests for OpenTelemetry, with W3C context; needs the extra `otel`.

A request is a span, and each of its stages a span below it. They are created from the
visit's times after the answer, so that no other code has to know about traces.
"""

import os
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace import Tracer as OpenTelemetryTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from service.visit import Visit

_W3C = (b"traceparent", b"tracestate")


class Tracer:
    """Starts the span of each request, below the caller's span if the request names one."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("persona")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def of_environment(cls) -> "Tracer":
        """Exports as the OTEL_* variables say; by default to OTLP's port on this machine."""
        name = os.environ.get("OTEL_SERVICE_NAME", "persona")
        provider = TracerProvider(resource=Resource.create({"service.name": name}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def start(self, visit: Visit, scope: Scope) -> "Trace":
        """Starts the trace of a request."""
        carrier = {k.decode(): v.decode("latin-1") for k, v in scope["headers"] if k in _W3C}
        method, path = scope["method"], scope["path"]
        epoch_ns = time.time_ns() - int(time.perf_counter() * 1e9)
        span = self._tracer.start_span(
            f"{method} {path}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": method,
                "url.path": path,
                "persona.request_id": visit.request_id,
            },
            start_time=epoch_ns + int(visit.started * 1e9),
        )
        visit.trace_id = f"{span.get_span_context().trace_id:032x}"
        return Trace(self._tracer, span, visit, epoch_ns)


class Trace:
    """The span of one request."""

    def __init__(
        self, tracer: OpenTelemetryTracer, span: Span, visit: Visit, epoch_ns: int
    ) -> None:
        self._tracer = tracer
        self._span = span
        self._visit = visit
        self._epoch_ns = epoch_ns  # of time.perf_counter

    def end(self, status: int) -> None:
        """Ends the span, and creates the spans of its stages."""
        span, visit = self._span, self._visit
        if status == 404:  # unknown paths may contain anything
            span.update_name("not found")
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        facts = {"key": visit.key, "model": visit.model, "version": visit.version}
        for name, value in facts.items():
            if value is not None:
                span.set_attribute(f"persona.{name}", value)
        below = set_span_in_context(span)
        last = self._ns(visit.started)
        for stage, end_s in visit.ends.items():
            end = self._ns(end_s)
            self._tracer.start_span(stage, context=below, start_time=last).end(end)
            last = end
        span.end()

    def _ns(self, seconds: float) -> int:
        return self._epoch_ns + int(seconds * 1e9)
