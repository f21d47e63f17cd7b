"""`up --dry-run`: what would be, what it costs, and nothing is made."""

from pathlib import Path

import pytest

from tests.integration.deploy.conftest import Checkout, Command, Made
from tests.support.deploy.aws import AwsServer, put_images
from tests.support.deploy.aws_host import StandInHost


def test_it_shows_resources_and_costs_and_makes_nothing(aws: AwsServer, ec2: Command, tag: str, made: Made) -> None:
    before = made()
    assert ec2.up("--dry-run") == 0, ec2.errors
    assert made() == before == {"repositories": ["darkroom-api"]}
    for text in (
        "5000, from 203.0.113.7/32 alone",
        "c7i.xlarge (amd64), ami-",
        "IMDSv2 with hop limit 1",
        "one host in eu-central-1a, replaced if it dies",
        f"images           {tag}",
        "host, c7i.xlarge",
        "0.2037 an hour",
        "together",
    ):
        assert text in ec2.output


def test_without_images_it_says_so(aws: AwsServer, ec2: Command, checkout: Checkout, made: Made) -> None:
    tag = checkout.commit()
    assert ec2.up("--dry-run") == 0, ec2.errors
    assert ec2.output.endswith(f"\nthere are no images {tag} in ECR: run `push` first\n")
    assert made() == {}


def test_without_credentials_it_says_what_was_not_checked(
    aws: AwsServer, ec2: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert ec2.up("--dry-run", "--region", "us-east-1") == 0, ec2.errors
    assert "would be in us-east-1 as darkroom" in ec2.output
    assert "0.1785 an hour" in ec2.output
    assert "not checked, without AWS credentials" in ec2.output
    assert ec2.refuses("up", "--cidr", "0.0.0.0/0", "--dry-run").startswith("--cidr 0.0.0.0/0 without --domain")


def test_it_refuses_what_up_would_refuse(aws: AwsServer, ec2: Command, tag: str) -> None:
    assert "has no such instance type" in ec2.refuses("up", "--cidr", "203.0.113.7/32", "--type", "x1", "--dry-run")


def test_it_shows_what_would_change(
    aws: AwsServer, ec2: Command, host: StandInHost, checkout: Checkout, tag: str, made: Made
) -> None:
    assert ec2.up() == 0, ec2.errors
    before = made()
    put_images(aws, newer := checkout.commit())
    assert ec2.up("--type", "c7i.2xlarge", "--domain", "images.example.com", "--dry-run") == 0, ec2.errors
    assert made() == before
    assert host.current == tag
    for text in (
        "80 and 443, from 203.0.113.7/32 alone",
        f"data volume      20 GiB of encrypted gp3: {before['volumes'][0]}",
        f"address          {before['addresses'][0]}",
        "with the secrets that are there",
        "InstanceType: c7i.xlarge → c7i.2xlarge",
        "the host is replaced",
        "Let's Encrypt must reach port 80 or 443 to certify images.example.com",
        f"images           {newer}",
    ):
        assert text in ec2.output
