"""Renders the user data of a host: what it installs and runs at its first boot."""

import shlex
from pathlib import Path
from typing import NamedTuple

from deploy.ec2.errors import DeployError

USER_DATA_BYTES_MAX = 16 << 10
"""EC2's limit, before base64."""
_FOLDER = Path(__file__).parent


class BootValues(NamedTuple):
    name: str
    """Of the stack, and of the compose project."""
    region: str
    registry: str
    """Host name of the registry in ECR."""
    tag_parameter: str
    """SSM parameter with the tag that runs from the next boot on. The host reads it and never writes it: `up` does,
    after `darkroom-host upgrade TAG` has ended with 0."""
    environment_parameter: str
    """SSM parameter, encrypted, with the lines of compose's `.env`."""
    volume_id: str
    """Empty for a host with workers alone, as is the address."""
    allocation_id: str
    gpu: bool
    s3: bool
    """Whether the outbound worker may reach the instance metadata, for credentials of the host's role."""


def user_data(values: BootValues) -> str:
    """The boot script with `values`, not encoded. Raises `DeployError` if it is longer than EC2 takes."""
    lines = {
        "NAME": values.name,
        "AWS_DEFAULT_REGION": values.region,
        "REGISTRY": values.registry,
        "TAG_PARAMETER": values.tag_parameter,
        "ENVIRONMENT_PARAMETER": values.environment_parameter,
        "VOLUME": values.volume_id,
        "ADDRESS": values.allocation_id,
        "GPU": "1" if values.gpu else "",
        "S3": "1" if values.s3 else "",
    }
    configuration = "\n".join(f"{name}={shlex.quote(value)}" for name, value in lines.items())
    text = (_FOLDER / "boot.sh").read_text()
    text = text.replace("@CONFIGURATION@", configuration).replace(
        "@HOST@", (_FOLDER / "darkroom-host.sh").read_text().rstrip()
    )
    if (size := len(text.encode())) > USER_DATA_BYTES_MAX:
        raise DeployError(f"the boot script has {size:,} bytes, and EC2 takes {USER_DATA_BYTES_MAX:,}")
    return text
