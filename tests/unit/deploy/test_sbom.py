"""The parts of an image are those that its requirements pin, in an environment that has more."""

from typing import Any

import pytest

from deploy.sbom import licences_of, parts_of


def part(name: str, version: str) -> dict[str, Any]:
    return {"name": name, "version": version, "bom-ref": name, "licenses": [{"license": {"id": "MIT"}}]}


WHOLE = {
    "bomFormat": "CycloneDX",
    "components": [part("Typing_Extensions", "4.1"), part("torch", "2.13.0+cpu"), part("pytest", "9.0")],
    "dependencies": [{"ref": "torch", "dependsOn": ["Typing_Extensions", "pytest"]}, {"ref": "pytest"}],
}


def test_the_document_has_the_pinned_parts_alone() -> None:
    found = parts_of(WHOLE, "torch==2.13.0\ntyping-extensions[extra]==4.1 \\\n    --hash=sha256:00\n")
    assert [it["name"] for it in found["components"]] == ["Typing_Extensions", "torch"]
    assert found["dependencies"] == [{"ref": "torch", "dependsOn": ["Typing_Extensions"]}]
    assert licences_of(found["components"][0]) == ["MIT"]


def test_an_environment_of_another_version_is_refused() -> None:
    with pytest.raises(SystemExit, match="lacks torch"):
        parts_of(WHOLE, "torch==2.14.0\n")
