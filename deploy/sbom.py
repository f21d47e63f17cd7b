"""`make sbom`: what the images of the API and of the workers are made of, with licences, as CycloneDX in sbom/.

All requirements share one set of versions (requirements/compile), so an image's parts are those of this environment
that its requirements pin. The packages of the base image are not in it.

    .venv-supply/bin/python -m deploy.sbom .venv/bin/python
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

IMAGES = {"api": ("api",), "worker": ("worker", "torch")}
"""The requirements of each."""
FOLDER = Path("sbom")


def main(python: str) -> None:
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-format", "JSON", python]
    whole = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    FOLDER.mkdir(exist_ok=True)
    for image, names in IMAGES.items():
        sbom = parts_of(whole, "".join(Path(f"requirements/{name}.txt").read_text() for name in names))
        (FOLDER / f"{image}.cdx.json").write_text(json.dumps(sbom, indent=1))
        for part in sbom["components"]:
            print(f"{image}\t{part['name']}\t{part['version']}\t{', '.join(licences_of(part)) or 'not stated'}")


def parts_of(whole: dict[str, Any], requirements: str) -> dict[str, Any]:
    """The document of an environment with the pinned parts alone. Exits if the environment lacks one."""
    pinned = re.findall(r"^([\w.-]+)(?:\[.*?\])?==([\w.]+)", requirements, re.MULTILINE)
    pins = {_plain(name): version for name, version in pinned}
    parts = [it for it in whole["components"] if pins.get(_plain(it["name"])) == it["version"].partition("+")[0]]
    if missing := pins.keys() - {_plain(part["name"]) for part in parts}:
        sys.exit(f"darkroom sbom: the environment lacks {', '.join(sorted(missing))}: run `make lint` first")
    known = {part["bom-ref"] for part in parts}
    dependencies = [
        {**it, "dependsOn": [ref for ref in it.get("dependsOn", []) if ref in known]}
        for it in whole.get("dependencies", [])
        if it["ref"] in known
    ]
    metadata = {name: value for name, value in whole.get("metadata", {}).items() if name != "component"}
    return {**whole, "metadata": metadata, "components": parts, "dependencies": dependencies}


def licences_of(part: dict[str, Any]) -> list[str]:
    licences = part.get("licenses", [])
    return [it.get("expression") or it["license"].get("id") or it["license"].get("name", "") for it in licences]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(sys.argv[1])
