"""The base of each image is an argument of its build, so that it can be pinned by digest without editing a file."""

import re

import pytest
import yaml

from tests.support.processes import ROOT

SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


@pytest.mark.parametrize("service", SERVICES)
def test_each_base_image_is_an_argument_that_compose_passes_if_it_is_set(service: str) -> None:
    build = SERVICES[service]["build"]
    dockerfile = (ROOT / build["context"] / build.get("dockerfile", "Dockerfile")).read_text()
    bases = set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE))
    names = {name for base in bases for name in re.findall(r"^\$\{(\w+)\}$", base)}
    assert len(names) == len(bases) > 0, bases
    arguments = build["args"]
    for name in names:
        assert re.search(rf"^ARG {name}=[a-z]+:[\w.-]+$", dockerfile, re.MULTILINE)
        assert name in arguments
        assert isinstance(arguments, list) or arguments[name] is None, "another value would replace the default"
        assert f"| `{name}` |" in (ROOT / "docs/DEPLOYMENT.md").read_text()
