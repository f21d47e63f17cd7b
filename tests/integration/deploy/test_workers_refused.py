"""What `up --workers` refuses, each with one line, and before anything is made; and its dry run."""

import subprocess
from pathlib import Path

import pytest

from tests.integration.deploy.conftest import CIDR, Checkout, Command, Made, parameter
from tests.support.deploy.aws import REGION, AwsServer, put_images
from tests.support.deploy.aws_host import StandInHost
from tests.support.deploy.aws_workers import StandInWorkers


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--workers", "-1"), "--workers -1: 0 to 20 hosts"),
        (("--workers", "21"), "--workers 21: 0 to 20 hosts"),
        (("--worker-type", "c7i.xlarge"), "--worker-type is for --workers"),
        (("--workers", "0", "--worker-type", "c7i.xlarge"), "--worker-type is for --workers"),
        (
            ("--workers", "1", "--worker-type", "c99.huge"),
            f"--worker-type c99.huge: {REGION} has no such instance type",
        ),
        (
            ("--workers", "1", "--worker-type", "c7g.xlarge"),
            "--worker-type c7g.xlarge is arm64, and c7i.xlarge is amd64: one `push` is for both",
        ),
        (
            ("--workers", "1", "--gpu", "--worker-type", "c7i.xlarge"),
            "--worker-type c7i.xlarge has no NVIDIA GPU beside x86_64 CPUs, which --gpu needs: such as g4dn.xlarge",
        ),
    ],
)
def test_hosts_that_do_not_do(
    aws: AwsServer, ec2: Command, tag: str, made: Made, arguments: tuple[str, ...], why: str
) -> None:
    for dry_run in ((), ("--dry-run",)):
        assert ec2.refuses("up", "--cidr", CIDR, *arguments, *dry_run) == why
    assert made().keys() == {"repositories"}


@pytest.mark.parametrize("number", ["x", "1.5", ""])
def test_a_number_that_is_none(ec2: Command, number: str) -> None:
    with pytest.raises(SystemExit):
        ec2.up("--workers", number)


def test_the_quota_counts_all_hosts(aws: AwsServer, ec2: Command, tag: str, made: Made) -> None:
    aws.quotas["L-1216C47A"] = 11
    refused = ec2.refuses("up", "--cidr", CIDR, "--workers", "2")
    assert f"in {REGION} is 11 vCPUs, and 3 × c7i.xlarge takes 12" in refused
    refused = ec2.refuses("up", "--cidr", CIDR, "--workers", "1", "--worker-type", "c7i.2xlarge")
    assert "c7i.xlarge and c7i.2xlarge takes 12" in refused
    assert made().keys() == {"repositories"}


def test_a_type_that_the_zone_has_not(aws: AwsServer, ec2: Command, checkout: Checkout) -> None:
    put_images(aws, f"{checkout.commit()}-arm64")
    refused = ec2.refuses("up", "--cidr", CIDR, "--type", "c7g.xlarge", "--workers", "1", "--worker-type", "g5g.xlarge")
    assert refused == f"--worker-type g5g.xlarge is not to be had in {REGION}a, the zone of the first host"


@pytest.mark.parametrize("setting", ["UPLOADS_URL=file:///srv/uploads", "UPLOADS_URL='file:///srv/uploads'"])
def test_uploads_in_a_folder(aws: AwsServer, ec2: Command, tag: str, made: Made, tmp_path: Path, setting: str) -> None:
    (file := tmp_path / "settings").write_text(f"{setting}\n")
    refused = ec2.refuses("up", "--cidr", CIDR, "--workers", "1", "--env-file", str(file))
    why = "is a folder of one host; name s3://bucket/prefix in --env-file, or leave it out"
    assert refused == f"--workers: {setting} {why}"
    assert made().keys() == {"repositories"}


def test_settings_that_are_too_long_for_a_worker_host(
    aws: AwsServer, ec2: Command, tag: str, made: Made, tmp_path: Path
) -> None:
    """Theirs are a little longer than the first host's: they name it."""
    (file := tmp_path / "settings").write_text(f"MODELS={'x' * 3850}\n")
    refused = ec2.refuses("up", "--cidr", CIDR, "--workers", "1", "--env-file", str(file))
    assert refused.startswith("/darkroom/workers/environment would have 4")
    assert made().keys() == {"repositories"}


def test_uploads_in_a_folder_of_the_last_up(
    aws: AwsServer, ec2: Command, host: StandInHost, tag: str, tmp_path: Path
) -> None:
    (file := tmp_path / "settings").write_text("UPLOADS_URL=file:///var/lib/darkroom/uploads\n")
    assert ec2.up("--env-file", str(file)) == 0, ec2.errors
    before = parameter(aws, "environment")
    assert "is a folder of one host" in ec2.refuses("up", "--cidr", CIDR, "--workers", "1")
    assert parameter(aws, "environment") == before


def test_uploads_that_wait_in_the_folder_keep_workers_out(
    aws: AwsServer, ec2: Command, host: StandInHost, workers: StandInWorkers, tag: str, made: Made
) -> None:
    assert ec2.up() == 0, ec2.errors
    before = made(), parameter(aws, "environment")
    host.hold_uploads(5_000_000)
    for dry_run in ((), ("--dry-run",)):
        refused = ec2.refuses("up", "--cidr", CIDR, "--workers", "1", *dry_run)
        assert refused.startswith(
            "5,000,000 bytes of uploads, or of failed images for a retry, wait in file:///var/lib"
        )
    assert (made(), parameter(aws, "environment")) == before
    host.hold_uploads(0)
    assert ec2.up("--workers", "1") == 0, ec2.errors


@pytest.mark.parametrize("attribute", ["EnableDnsHostnames", "EnableDnsSupport"])
def test_a_vpc_without_dns_names(aws: AwsServer, ec2: Command, tag: str, made: Made, attribute: str) -> None:
    client = aws.client("ec2")
    (vpc,) = client.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    client.modify_vpc_attribute(VpcId=vpc["VpcId"], **{attribute: {"Value": False}})
    name = f"e{attribute[1:]}"
    refused = ec2.refuses("up", "--cidr", CIDR, "--workers", "1")
    assert refused.startswith(
        f"--workers: {vpc['VpcId']} has {name} off, and worker hosts find the first one by its DNS"
    )
    assert made().keys() == {"repositories"}


def test_without_openssl_nothing_is_made(
    aws: AwsServer, ec2: Command, tag: str, made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    git = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "bin/git").symlink_to(git)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    refused = ec2.refuses("up", "--cidr", CIDR, "--workers", "1")
    assert refused == "the openssl command is not installed, and --workers needs a certificate"
    assert made().keys() == {"repositories"}


def test_a_dry_run_shows_them_and_their_costs(aws: AwsServer, ec2: Command, tag: str, made: Made) -> None:
    before = made()
    assert ec2.up("--dry-run", "--workers", "2", "--worker-type", "c7i.2xlarge") == 0, ec2.errors
    assert made() == before
    for text in (
        "workers          a group of 2 hosts, c7i.2xlarge (amd64), whose role reads\n",
        "/darkroom/workers/* alone; port 6380 of the first host is open to them\n",
        "uploads          from 64 KiB on wait in redis:\n",
        "2 × worker host, c7i.2xlarge                                   0.8148 an hour",
        "2 × its disk, 20 GiB",
        "2 × its public address                                         0.0100 an hour",
        "together                                                       1.0441 an hour",
    ):
        assert text in ec2.output, text
