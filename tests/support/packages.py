"""Model packages like the shipped one, and jobs for them."""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import ROOT, Api

SHIPPED = ROOT / "weights" / "fmnist-mlp"


def package(folder: Path, ref: str, **changes: object) -> None:
    """A copy of the shipped package in a folder of this name, with changes to its manifest."""
    name, _, version = ref.partition("@")
    shutil.copytree(SHIPPED, folder / ref)
    manifest = json.loads((SHIPPED / "manifest.json").read_text()) | {"name": name, "version": version or "1"} | changes
    (folder / ref / "manifest.json").write_text(json.dumps(manifest))


def classified(api: Api, image: bytes, model: str, seconds: int = 20) -> dict[str, Any]:
    """Submit one PNG. Returns the job once it has ended, or after so many seconds."""
    headers = {"Content-Type": "image/png", "Prefer": f"wait={seconds}"}
    response = httpx.post(f"{api.url}/v1/jobs?model={model}", content=image, headers=headers, timeout=40)
    assert response.status_code in (200, 202), response.text
    found: dict[str, Any] = response.json()
    return found
