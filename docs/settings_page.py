"""Writes docs/SETTINGS.md from the settings themselves: `python -m docs.settings_page`."""

from pathlib import Path

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from jobs.settings import StoreSettings
from worker.outbound.settings import OutboundSettings
from worker.settings import LeasingSettings, WorkerSettings

PAGE = Path(__file__).parent / "SETTINGS.md"
HEAD = """# Settings

Every setting is an environment variable. Under compose, put them into a file `.env` beside `docker-compose.yml`.
If one is wrong, or two contradict each other, nothing starts, and one line says why.

`make run` reads `HOST`, `PORT`, `REDIS_URL` (its embedded server is not started then) and `DATA_DIR` (where that server
keeps its file; `data/port-<PORT>` by default), and hands all others on, except for `REDIS_PASSWORD` where the embedded
server, which has none, is used. `make demo` reads `DARKROOM_URL`, else `HOST` and `PORT`. Compose reads `PORT` (5000),
`REDIS_PASSWORD`, `REDIS_MAXMEMORY_BYTES`, and for each service `…_MEMORY_LIMIT` and `…_CPUS`. The client reads
`DARKROOM_URL` and `DARKROOM_API_KEY`.
"""


def page() -> str:
    store = set(StoreSettings.model_fields)
    workers = LeasingSettings.model_fields.keys() - store
    outside = ApiSettings.model_fields.keys() & OutboundSettings.model_fields.keys() - store
    sections = [
        ("All services", StoreSettings, store),
        ("API", ApiSettings, ApiSettings.model_fields.keys() - store - outside),
        ("API and outbound workers", OutboundSettings, outside),
        ("Both kinds of workers", LeasingSettings, workers),
        ("Workers", WorkerSettings, WorkerSettings.model_fields.keys() - store - workers),
        ("Outbound workers", OutboundSettings, OutboundSettings.model_fields.keys() - store - workers - outside),
    ]
    return HEAD + "".join(_section(title, settings, names) for title, settings, names in sections)


def _section(title: str, settings: type[BaseSettings], names: set[str]) -> str:
    rows = ["", f"## {title}", "", "| variable | default | |", "|---|---|---|"]
    for name, field in settings.model_fields.items():
        if name in names:
            default = "" if field.default in (PydanticUndefined, None) else f"`{field.default}`"
            rows.append(f"| `{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
