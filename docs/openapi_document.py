"""Writes docs/openapi.json from the routes themselves: `python -m docs.openapi_document`."""

import json
from pathlib import Path

from api.app import create_app
from api.settings import ApiSettings

PATH = Path(__file__).parent / "openapi.json"


def document() -> str:
    """As an API with default settings serves it."""
    return json.dumps(create_app(ApiSettings()).openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(document())
