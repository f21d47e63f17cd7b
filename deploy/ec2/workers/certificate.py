"""The certificate by which worker hosts know Redis on the first host."""

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from deploy.ec2.errors import DeployError

VALID_DAYS = 3650
"""It is drawn again with each new address, so at each first `up` after a `down`."""
_SECONDS_MAX = 60


class Certificate(NamedTuple):
    """Both as PEM. It is its own authority."""

    certificate: str
    key: str


def check_openssl() -> None:
    """Raises `DeployError` if it is not installed."""
    if shutil.which("openssl") is None:
        raise DeployError("the openssl command is not installed, and --workers needs a certificate")


def draw(host_name: str) -> Certificate:
    """A certificate of this DNS name, as docs/DEPLOYMENT.md makes one."""
    check_openssl()
    with TemporaryDirectory(prefix="darkroom-") as folder:
        certificate, key = Path(folder) / "redis.crt", Path(folder) / "redis.key"
        command = [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", str(VALID_DAYS), "-subj", "/CN=darkroom-redis", "-addext", f"subjectAltName=DNS:{host_name}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)
        except subprocess.TimeoutExpired:
            raise DeployError(f"`openssl req` did not end within {_SECONDS_MAX} s") from None
        if done.returncode:
            raise DeployError(f"openssl: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
        return Certificate(certificate.read_text(), key.read_text())


def dns_name(ip: str, region: str) -> str:
    """The public name that EC2 gives an address. Inside of the VPC it leads to the host's private address."""
    zone = "compute-1" if region == "us-east-1" else f"{region}.compute"
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"ec2-{ip.replace('.', '-')}.{zone}.{suffix}"
