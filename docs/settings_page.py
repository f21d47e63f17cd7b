"""Writes docs/reference/settings.md from the settings themselves: `python -m docs.settings_page`."""

from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from jobs.metrics.settings import ServiceSettings
from jobs.settings import is_advanced
from worker.outbound.settings import OutboundSettings
from worker.settings import LeasingSettings, WorkerSettings

PAGE = Path(__file__).parent / "reference/settings.md"
HEAD = """# Settings

Every setting is an environment variable. Under compose, write them into a file `.env` beside `docker-compose.yml`;
values with `$` or `#` need single quotes there ([deployment](../DEPLOYMENT.md)). If a setting is invalid or two
settings contradict each other, no service starts, and one line says why. A setting that was removed in an earlier
version and is still set is ignored with one warning at start.

The first part lists the settings that a deployment may want to choose. The second part lists the others: limits and
intervals whose defaults fit together, and which few deployments change.

`make run` reads `HOST`, `PORT`, `REDIS_URL` (if set, the embedded server is not started) and `DATA_DIR` (the folder of
the embedded server's file and of large uploads; `data/port-<PORT>` by default), and passes all other settings on. With
the embedded server, which has no password, `REDIS_PASSWORD` is ignored, and `UPLOADS_URL` is a folder in `DATA_DIR`
unless it is set. `METRICS_PORT` is that of the API; the worker has the next one, and the outbound worker the one after
that. `make demo` reads `DARKROOM_URL`, else `HOST` and `PORT`. Compose reads `BIND` (127.0.0.1), `PORT` (5000),
`DOMAIN`, `REDIS_PASSWORD` (of the API), `REDIS_WORKER_PASSWORD` (of the workers), `REDIS_MAXMEMORY_BYTES`,
`UPLOADS_URL` (the volume `uploads`), for each service `…_MEMORY_LIMIT` and `…_CPUS`, `WORKER_PIDS_LIMIT`, for the edge
`EDGE_BIND`, `EDGE_HTTP_PORT` and `EDGE_HTTPS_PORT`, and `PROMETHEUS_PORT` (9090); it sets `METRICS_PORT` itself. The
client reads `DARKROOM_URL` and `DARKROOM_API_KEY`.
"""
UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"))


def page() -> str:
    return HEAD + _part("Common settings", advanced=False) + _part("Advanced settings", advanced=True)


def _part(title: str, *, advanced: bool) -> str:
    store = set(ServiceSettings.model_fields)
    workers = LeasingSettings.model_fields.keys() - store
    outside = ApiSettings.model_fields.keys() & OutboundSettings.model_fields.keys() - store
    sections = [
        ("All services", ServiceSettings, store),
        ("API", ApiSettings, ApiSettings.model_fields.keys() - store - outside),
        ("API and outbound workers", OutboundSettings, outside),
        ("Workers and outbound workers", LeasingSettings, workers),
        ("Workers", WorkerSettings, WorkerSettings.model_fields.keys() - store - workers),
        ("Outbound workers", OutboundSettings, OutboundSettings.model_fields.keys() - store - workers - outside),
    ]
    tables = (_section(heading, settings, names, advanced=advanced) for heading, settings, names in sections)
    return f"\n## {title}\n" + "".join(tables)


def _section(title: str, settings: type[BaseSettings], names: set[str], *, advanced: bool) -> str:
    rows = [
        f"| `{name.upper()}` | {_default(name, field)} | {field.description} |"
        for name, field in settings.model_fields.items()
        if name in names and is_advanced(field) is advanced
    ]
    head = ["", f"### {title}", "", "| variable | default | description |", "|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n" if rows else ""


def _default(name: str, field: FieldInfo) -> str:
    if field.default in (PydanticUndefined, None, ""):
        return ""
    for size, unit in UNITS:
        if "_bytes" in name and field.default % size == 0:
            return f"`{field.default}` ({field.default // size} {unit})"
    return f"`{field.default}`"


if __name__ == "__main__":
    PAGE.write_text(page())
