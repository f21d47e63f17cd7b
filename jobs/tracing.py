"""Traces by OpenTelemetry, from the extra `otel`. Off, and nothing of it is imported, until `open_tracing`.

The API keeps a job's `traceparent` in its record; the span of a worker's batch links to those of its jobs.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from jobs.errors import SettingsError

TRACEPARENT = "traceparent"
"""Name of the header of W3C Trace Context, and of the field of a job's record."""
FLUSH_SECONDS_MAX = 3  # of a process that stops
LINKS_MAX = 128  # of one span, as OpenTelemetry limits them
Attributes = Mapping[str, str | int | float | bool]

_provider: Any = None
_tracer: Any = None


def open_tracing(endpoint: str | None, service: Literal["api", "worker", "outbound"]) -> None:
    """Send this process's spans to an OTLP endpoint from now on, in a thread. No effect without an endpoint.

    Further settings are those of OpenTelemetry's SDK, `OTEL_TRACES_SAMPLER` for one. A worker has no sampler: it has a
    span for what the API has sampled. Call it once a process, after the last fork.

    Raises:
        SettingsError: the extra is not installed.
    """
    global _provider, _tracer  # noqa: PLW0603 - one a process, as the SDK has it
    if endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider, sampling
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT: {error.name} is not installed: pip install -r requirements/otel.txt"
        ) from None
    sampler = None if service == "api" else sampling.ALWAYS_ON
    _provider = TracerProvider(
        sampler, Resource.create({"service.name": f"darkroom-{service}"}), shutdown_on_exit=False
    )
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
    _tracer = _provider.get_tracer("darkroom")


def close_tracing() -> None:
    """Send what is left, for a few seconds at most: the SDK itself has no limit, if a collector does not answer."""
    if _provider is not None:
        flush = threading.Thread(target=_provider.force_flush, daemon=True)
        flush.start()
        flush.join(FLUSH_SECONDS_MAX)


def is_open() -> bool:
    """Whether this process has spans; to save the work of finding out what they say."""
    return _tracer is not None


class RequestSpan:
    """The span of a request, while it is the current one."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def describe(self, name: str, attributes: Attributes, *, failed: bool) -> None:
        """Once the response has been sent."""
        from opentelemetry.trace import StatusCode

        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if failed:
            self._span.set_status(StatusCode.ERROR)


@contextmanager
def request_span(traceparent: str) -> Iterator[RequestSpan]:
    """The span of a request within the context, below that of the client's `traceparent`; a new trace without one."""
    from opentelemetry.trace import SpanKind

    with _tracer.start_as_current_span("request", _context(traceparent), SpanKind.SERVER) as span:
        yield RequestSpan(span)


def current_traceparent() -> str:
    """Of the current span, for a job's record. Empty if there is none, or if it is not sampled."""
    if _tracer is None:
        return ""
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = dict[str, str]()
    if get_current_span().get_span_context().trace_flags.sampled:
        TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(TRACEPARENT, "")


@contextmanager
def linked_span(name: str, traceparents: Iterable[str], attributes: Attributes) -> Iterator[None]:
    """The span of a worker's work within the context, linked to those of its jobs. None if no job has one."""
    from opentelemetry.trace import Link, SpanKind, get_current_span

    contexts = [get_current_span(_context(it)).get_span_context() for it in dict.fromkeys(traceparents)]
    links = [Link(context) for context in contexts if context.is_valid][:LINKS_MAX]
    if not links:
        yield
        return
    with _tracer.start_as_current_span(name, kind=SpanKind.CONSUMER, links=links, attributes=attributes):
        yield


def _context(traceparent: str) -> Any:
    """Empty if it is malformed."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({TRACEPARENT: traceparent}, Context())
