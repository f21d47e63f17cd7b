from pathlib import Path

import pytest

from deploy.ec2.errors import DeployError
from deploy.ec2.options import UpOptions, check, check_name, read_settings


@pytest.mark.parametrize("cidr", ["203.0.113.7/32", "10.0.0.0/8", "198.51.100.0/24"])
def test_ranges_that_may_send_keys(cidr: str) -> None:
    assert check(UpOptions(cidr=cidr)).cidr == cidr


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        ("0.0.0.0/0", "keys would travel in the clear"),
        ("128.0.0.0/1", "keys would travel in the clear"),
        ("203.0.113.7", "write it as 203.0.113.7/32"),
        ("203.0.113.7/24", "has host bits set"),
        ("203.0.113.0/33", "not a range"),
        ("203.0.113.0/", "not a range"),
        ("::/0", "not a range of IPv4 addresses"),
        ("2001:db8::/32", "not a range of IPv4 addresses"),
        ("", "not a range"),
        ("everybody", "not a range"),
        ("203.0.113.7/32,198.51.100.0/24", "not a range"),
        (" 203.0.113.7/32", "not a range"),
        ("203.0.113.7/255.255.255.255", "write it as 203.0.113.7/32"),
    ],
)
def test_ranges_that_are_refused(cidr: str, why: str) -> None:
    with pytest.raises(DeployError, match=why) as refused:
        check(UpOptions(cidr=cidr))
    assert "\n" not in str(refused.value)


def test_everybody_may_come_with_tls() -> None:
    assert check(UpOptions(cidr="0.0.0.0/0", domain="images.example.com"))


@pytest.mark.parametrize(
    "domain", ["localhost", "a..b", "-a.example", "images.example.com:80", "https://a.b", "a.b/c", "x" * 64 + ".de"]
)
def test_domains_that_are_none(domain: str) -> None:
    with pytest.raises(DeployError, match="--domain"):
        check(UpOptions(cidr="10.0.0.0/8", domain=domain))


@pytest.mark.parametrize("bucket", ["s3://pictures", "Pictures", "pictures/*", "*", "a"])
def test_buckets_that_are_none(bucket: str) -> None:
    """The name becomes part of the role's policy."""
    with pytest.raises(DeployError, match="--s3-bucket"):
        check(UpOptions(cidr="10.0.0.0/8", s3_bucket=bucket))


@pytest.mark.parametrize("name", ["", "1st", "Darkroom", "a_b", "a/b", "x" * 33, "aws-x", "ssm"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(DeployError, match="--name"):
        check_name(name)


def test_the_command_line_has_what_was_given() -> None:
    assert UpOptions(cidr="10.0.0.0/8").command_line() == "--cidr 10.0.0.0/8"
    options = UpOptions(cidr="10.0.0.0/8", type="t3.large", gpu=True, domain="a.example")
    assert options.command_line() == "--cidr 10.0.0.0/8 --type t3.large --domain a.example --gpu"


def test_worker_hosts_are_on_the_command_line_if_there_are_some() -> None:
    options = UpOptions(cidr="10.0.0.0/8", workers=2, worker_type="c7i.2xlarge")
    assert options.command_line() == "--cidr 10.0.0.0/8 --workers 2 --worker-type c7i.2xlarge"
    assert UpOptions(cidr="10.0.0.0/8", workers=2, type="t3.large").worker_instance_type == "t3.large"


@pytest.mark.parametrize("url", ["s3://ours/x", "redis:", '"redis:"'])
def test_places_of_uploads_that_other_hosts_reach(url: str) -> None:
    assert check(UpOptions(cidr="10.0.0.0/8", workers=1, settings=(f"UPLOADS_URL={url}",)))


def test_settings_are_lines_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text('# a comment\n\n  MODELS=a,b  \nWEBHOOK_SECRETS={"admin": "whsec_x="}\n')
    assert read_settings(file) == ("MODELS=a,b", 'WEBHOOK_SECRETS={"admin": "whsec_x="}')
    file.write_bytes(b"\xff")
    with pytest.raises(DeployError, match="--env-file"):
        read_settings(file)
