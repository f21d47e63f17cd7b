"""The boot script: what is filled in, its size, and what shellcheck says."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.ec2.errors import DeployError
from deploy.ec2.host import user_data as boot
from deploy.ec2.host.user_data import USER_DATA_BYTES_MAX, BootValues, user_data
from tests.support.processes import ROOT

VALUES = BootValues(
    name="darkroom",
    region="eu-central-1",
    registry="123456789012.dkr.ecr.eu-central-1.amazonaws.com",
    tag_parameter="/darkroom/tag",
    environment_parameter="/darkroom/environment",
    volume_id="vol-0123456789abcdef0",
    allocation_id="eipalloc-0123456789abcdef0",
    gpu=False,
    s3=True,
)


def _shell_values(text: str, *names: str) -> list[str]:
    """What a shell reads from the configuration that the boot script writes."""
    block = text.partition("<<'CONFIGURATION'\n")[2].partition("\nCONFIGURATION\n")[0]
    script = "\n".join(["set -eu", block, *(f'printf "%s\\0" "${name}"' for name in names)])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def test_the_host_reads_the_values_as_they_were_given() -> None:
    values = VALUES._replace(name="it's $HOME `id`", gpu=True, s3=False)
    read = _shell_values(user_data(values), "NAME", "AWS_DEFAULT_REGION", "VOLUME", "ADDRESS", "GPU", "S3")
    assert read == ["it's $HOME `id`", "eu-central-1", values.volume_id, values.allocation_id, "1", ""]


def test_the_script_leaves_room_below_the_limit() -> None:
    assert len(user_data(VALUES).encode()) < USER_DATA_BYTES_MAX - 1024


def test_a_script_over_the_limit_is_refused() -> None:
    with pytest.raises(DeployError, match=r"^the boot script has [\d,]+ bytes, and EC2 takes 16,384$"):
        user_data(VALUES._replace(name="n" * USER_DATA_BYTES_MAX))


def test_the_whole_script_is_one_that_bash_reads(tmp_path: Path) -> None:
    """The host's script inside it ends no block early."""
    (tmp_path / "boot").write_text(user_data(VALUES))
    subprocess.run(["bash", "-n", str(tmp_path / "boot")], check=True)
    text = user_data(VALUES)
    inner = text.partition("<<'HOST'\n")[2].partition("\nHOST\n")[0]
    assert inner == (Path(boot.__file__).parent / "darkroom-host.sh").read_text().rstrip()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="Debian's package shellcheck is not installed")
@pytest.mark.parametrize(
    "script",
    [
        "deploy/ec2/host/boot.sh",
        "deploy/ec2/host/darkroom-host.sh",
        "deploy/redis/start",
        "deploy/redis/redis-admin",
        "--shell sh deploy/backup/place.sh",
    ],
)
def test_shellcheck_finds_nothing(script: str) -> None:
    done = subprocess.run(shlex.split(f"shellcheck {script}"), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


def test_the_metadata_rule_and_compose_agree_on_the_address_of_outbound() -> None:
    host = (ROOT / "deploy/ec2/host/darkroom-host.sh").read_text()
    address = host.partition("OUTBOUND_ADDRESS=")[2].split()[0]
    assert f"ipv4_address: {address}" in (ROOT / "deploy/ec2/host/docker-compose.ec2.yml").read_text()
