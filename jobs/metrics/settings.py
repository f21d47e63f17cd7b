"""Settings of every service, beyond those of its store."""

from typing import Annotated

from pydantic import Field

from jobs.settings import StoreSettings, advanced

HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$")]


class ServiceSettings(StoreSettings):
    metrics_port: Annotated[int, Field(ge=1, le=65_535)] | None = advanced(
        None,
        description="Port on which the service answers Prometheus, one for all of its processes. Anybody who reaches "
        "it reads the numbers: it is for an internal network. Default: no metrics, and nothing is counted.",
    )
    metrics_host: str = advanced("127.0.0.1", description="Address to listen on with `METRICS_PORT`.")
    otel_exporter_otlp_endpoint: HttpUrl | None = advanced(
        None,
        description="URL of a collector to which traces are sent as OTLP over HTTP, for example "
        "`http://collector:4318`; needs the extra `otel`. OpenTelemetry's own `OTEL_…` variables say the rest, where a "
        "process has them. Default: no traces.",
    )
