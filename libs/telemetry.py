"""Traces and metrics: trace ids always, Prometheus always, OTLP where an endpoint is set."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from prometheus_client import REGISTRY, Gauge, Histogram
from sqlalchemy import event
from sqlalchemy.engine import Engine

from libs.config import Settings

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
RPC_SECONDS = Histogram(
    "regulars_rpc_seconds", "Time of an answered call.", ["service", "method", "code"], buckets=BUCKETS
)
RPC_RUNNING = Gauge("regulars_rpc_running", "Calls that are being answered.", ["service"])

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_ids: IdGenerator = RandomIdGenerator()
_tracer: trace.Tracer | None = None
_seconds: metrics.Histogram | None = None


def set_up(settings: Settings, name: str) -> None:
    """Starts the export of this process's traces and metrics if the settings have an endpoint; once."""
    if not settings.otlp_endpoint or _tracer is not None:
        return
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    base = settings.otlp_endpoint.rstrip("/")
    resource = Resource.create({"service.name": name, "service.namespace": "regulars"})
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{base}/v1/traces")))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{base}/v1/metrics"))
    meters = MeterProvider(resource=resource, metric_readers=[reader])
    trace_with(tracers)
    metrics.set_meter_provider(meters)
    _mirror(meters.get_meter("regulars"))


def trace_with(provider: TracerProvider) -> None:
    """Records spans of calls, statements and messages with `provider`."""
    global _tracer
    trace.set_tracer_provider(provider)
    _tracer = provider.get_tracer("regulars")
    if not event.contains(Engine, "before_cursor_execute", _statement_begins):
        event.listen(Engine, "before_cursor_execute", _statement_begins)
        event.listen(Engine, "after_cursor_execute", _statement_ends)
        event.listen(Engine, "handle_error", _statement_failed)


def shut_down() -> None:
    """Sends what is left. Blocks for a moment."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.shutdown()
    meters = metrics.get_meter_provider()
    if isinstance(meters, MeterProvider):
        meters.shutdown()


def _mirror(meter: metrics.Meter) -> None:
    """Our Prometheus counters and gauges over OTLP as well; calls have a histogram of their own."""
    global _seconds
    _seconds = meter.create_histogram("rpc.server.duration", unit="s")
    for family in REGISTRY.collect():
        if family.name.startswith("regulars_") and family.type in {"counter", "gauge"}:
            meter.create_observable_gauge(
                family.name, [_reader(family.name)], description=family.documentation
            )


def _reader(name: str) -> Any:
    def observe(_: CallbackOptions) -> Iterator[Observation]:
        for family in REGISTRY.collect():
            if family.name == name:
                for sample in family.samples:
                    if not sample.name.endswith("_created"):
                        yield Observation(sample.value, sample.labels)

    return observe


def extract(traceparent: str | None) -> contexts.Context:
    """The context of a W3C `traceparent`; without one, or with a wrong one, a new trace."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None:
        return contexts.Context()
    remote = SpanContext(int(found[1], 16), int(found[2], 16), True, TraceFlags(int(found[3], 16)))
    return trace.set_span_in_context(NonRecordingSpan(remote), contexts.Context())


def traceparent() -> str:
    """The running span as a W3C `traceparent`, or "" outside of any."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return ""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


@contextmanager
def span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: contexts.Context | None = None,
    attributes: Mapping[str, str | int] | None = None,
) -> Iterator[Span]:
    """Runs the block in a span. Where nothing is exported it still has ids, for logs and events.

    An exception marks the span ERROR by its type; its text stays out.
    """
    started = _begin(name, kind, parent, attributes)
    token = contexts.attach(trace.set_span_in_context(started, parent or contexts.get_current()))
    try:
        yield started
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        started.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        contexts.detach(token)
        started.end()


@contextmanager
def statement(text: str) -> Iterator[None]:
    """Runs the block, which sends this statement, in a span; in none where nothing is exported."""
    if _tracer is None:
        yield
        return
    with span(statement_name(text), SpanKind.CLIENT, contexts.get_current(), {"db.system": "postgresql"}):
        yield


def _begin(
    name: str, kind: SpanKind, parent: contexts.Context | None, attributes: Mapping[str, str | int] | None
) -> Span:
    if _tracer is not None:
        return _tracer.start_span(
            name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
        )
    above = trace.get_current_span(parent).get_span_context()
    trace_id = above.trace_id if above.is_valid else _ids.generate_trace_id()
    return NonRecordingSpan(
        SpanContext(trace_id, _ids.generate_span_id(), False, TraceFlags(above.trace_flags))
    )


@cache
def _rpc_seconds(service: str, method: str, code: str) -> Histogram:
    return RPC_SECONDS.labels(service, method, code)


def answered(service: str, method: str, code: str, seconds: float) -> None:
    """Counts one call."""
    _rpc_seconds(service, method, code).observe(seconds)
    if _seconds is not None:
        _seconds.record(seconds, {"rpc.service": service, "rpc.method": method, "rpc.code": code})


def _statement_begins(conn: Any, cursor: Any, statement: str, params: Any, context: Any, many: bool) -> None:
    if _tracer is not None and context is not None:
        name = statement_name(statement)
        context.regulars_span = _tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes={"db.system": "postgresql"}
        )


def _statement_ends(conn: Any, cursor: Any, statement: str, params: Any, context: Any, many: bool) -> None:
    started = getattr(context, "regulars_span", None)
    if started is not None:
        started.end()


def _statement_failed(context: Any) -> None:
    started = getattr(context.execution_context, "regulars_span", None)
    if started is not None:
        started.set_status(Status(StatusCode.ERROR, type(context.original_exception).__name__))
        started.end()


def statement_name(statement: str) -> str:
    """`SELECT customers`: verb and first table, and nothing that could be a value."""
    words = statement.split(None, 1)
    verb = words[0].upper() if words else "SQL"
    table = re.search(r"\b(?:from|into|update|copy)\s+([a-z_][\w.]*)", statement[:2000], re.I)
    return f"{verb} {table[1]}" if table else verb
