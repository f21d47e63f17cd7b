import json

from jobs.model_manifest import Manifest
from tests.support.processes import ROOT
from worker.inference.command import schema


def test_the_published_schema_is_that_of_the_manifest() -> None:
    published = ROOT / "docs" / "manifest.schema.json"
    assert published.read_text() == schema(), "python -m worker.inference schema > docs/manifest.schema.json"
    for manifest in (ROOT / "weights").glob("*/manifest.json"):
        assert set(json.loads(manifest.read_text())) <= set(json.loads(schema())["properties"])
        Manifest.model_validate_json(manifest.read_text())
