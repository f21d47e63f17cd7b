"""What `docker compose config` makes of docker-compose.yml and the file .env; skipped without a Docker engine."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy.compose import docker, reason_to_skip
from tests.support.processes import ROOT

_REASON = reason_to_skip()
pytestmark = pytest.mark.skipif(bool(_REASON), reason=f"no Docker engine to run compose with: {_REASON}")


def configured(folder: Path, env: str) -> dict[str, Any]:
    """The services with this file .env."""
    (folder / "docker-compose.yml").write_text((ROOT / "docker-compose.yml").read_text())
    (folder / ".env").write_text(env)
    command = ["compose", "--project-directory", str(folder), "--profile", "tls", "config", "--format", "json"]
    services: dict[str, Any] = json.loads(docker(*command).stdout)["services"]
    return services


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('API_KEYS=\'{"alice": "a$b #c${d}"}\'', "a$b #c${d}"),
        ('API_KEYS={"alice": "a$b #c"}', "a"),  # what docs/DEPLOYMENT.md warns of: compose alone sees the difference
    ],
)
def test_single_quotes_in_the_file_env_keep_what_they_enclose(tmp_path: Path, line: str, key: str) -> None:
    passed = configured(tmp_path, line + "\n")["api"]["environment"]["API_KEYS"].replace("$$", "$")
    assert passed.startswith(f'{{"alice": "{key}')
    assert passed.endswith('"}') is (key != "a")


SECRETS = {
    "API_KEYS": '{"alice": "a-long-random-key"}',
    "WEBHOOK_SECRETS": '{"alice": "whsec_a-long-random-secret"}',
    "S3_SECRET_ACCESS_KEY": "a-long-random-key-of-s3",
    "OF_ANOTHER_PROGRAM": "a-long-random-password",
}


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("api", set(SECRETS)),
        ("worker", set()),
        ("outbound", {"WEBHOOK_SECRETS", "S3_SECRET_ACCESS_KEY"}),
        ("redis", set()),
        ("edge", set()),
    ],
)
def test_secrets_of_the_file_env_reach_who_needs_them(service: str, expected: set[str], tmp_path: Path) -> None:
    env = "".join(f"{name}='{value}'\n" for name, value in SECRETS.items())
    passed = {name for name, value in configured(tmp_path, env)[service]["environment"].items() if value}
    assert passed & SECRETS.keys() == expected
