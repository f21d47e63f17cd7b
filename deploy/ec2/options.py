"""What `up` was asked for, checked as far as possible without AWS."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from deploy.ec2.errors import DeployError

NAME = "darkroom"
CPU_TYPE, GPU_TYPE = "c7i.xlarge", "g4dn.xlarge"
CLEAR_PREFIX_MIN = 8
"""Without TLS, the widest range of addresses that may send keys: 2^24 addresses."""
READY_SECONDS_MAX, WAIT_SECONDS_MAX = 1200, 7200

_NAME = re.compile(r"(?!aws|ssm)[a-z][a-z0-9-]{0,31}")  # SSM keeps parameters that begin so to itself
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})+", re.IGNORECASE)
WORKERS_MAX = 20
"""Hosts: they are upgraded one after the other, and one Redis serves them all (docs/SCALE.md)."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*=.*")
OWN_SETTINGS = frozenset(
    (
        "API_KEYS",
        "BIND",
        "COMPOSE_PROFILES",
        "DOMAIN",
        "REDIS_PASSWORD",
        "REDIS_TLS_PORT",
        "REDIS_WORKER_PASSWORD",
    )
)
"""Made by `up` from its options, or drawn once."""
_FIXED = frozenset(
    (
        "EDGE_BIND",
        "EDGE_HTTPS_PORT",
        "EDGE_HTTP_PORT",
        "EDGE_IMAGE",
        "HOST",
        "PORT",
        "REDIS_IMAGE",
        "REDIS_TLS_BIND",
        "REDIS_TLS_FOLDER",
        "REDIS_URL",
        "REGISTRY",
        "TAG",
    )
)


@dataclass(frozen=True)
class UpOptions:
    """The options of `up`: what is not given has its default again, so the same command line gives the same stack."""

    cidr: str
    type: str = ""
    gpu: bool = False
    spot: bool = False
    domain: str = ""
    key_name: str = ""
    subnet: str = ""
    s3_bucket: str = ""
    new_ami: bool = False
    settings: tuple[str, ...] | None = None
    """Lines for the host's `.env`; None keeps those of the last `up`."""
    workers: int = 0
    """Hosts with workers alone, beside the first one."""
    worker_type: str = ""
    wait_seconds: float = READY_SECONDS_MAX

    @property
    def instance_type(self) -> str:
        return self.type or (GPU_TYPE if self.gpu else CPU_TYPE)

    @property
    def worker_instance_type(self) -> str:
        """Of the hosts with workers alone."""
        return self.worker_type or self.instance_type

    def command_line(self) -> str:
        """The options as they are typed, without those that have their default."""
        given = {
            "type": self.type,
            "domain": self.domain,
            "key-name": self.key_name,
            "subnet": self.subnet,
            "s3-bucket": self.s3_bucket,
            "workers": self.workers or "",
            "worker-type": self.worker_type,
        }
        flags = [f"--{name}" for name, is_set in (("gpu", self.gpu), ("spot", self.spot)) if is_set]
        return " ".join(
            [f"--cidr {self.cidr}", *(f"--{name} {value}" for name, value in given.items() if value), *flags]
        )


def check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise DeployError(f"--name {name!r}: up to 32 of a to z, 0 to 9 and -, with a letter first, and not aws or ssm")
    return name


def check(options: UpOptions) -> UpOptions:
    """Refuse what is wrong whatever the account has.

    Raises:
        DeployError: names the option.
    """
    try:
        network = IPv4Network(options.cidr)
    except ValueError as error:
        raise DeployError(f"--cidr {options.cidr!r} is not a range of IPv4 addresses: {error}") from None
    if str(network) != options.cidr:
        raise DeployError(f"--cidr {options.cidr}: write it as {network}")
    if not options.domain and network.prefixlen < CLEAR_PREFIX_MIN:
        raise DeployError(
            f"--cidr {options.cidr} without --domain: keys would travel in the clear from anywhere; give your own "
            "range, or a --domain, which is served with TLS"
        )
    if options.domain and not _DOMAIN.fullmatch(options.domain):
        raise DeployError(f"--domain {options.domain!r} is not a name such as images.example.com")
    if options.s3_bucket and not _BUCKET.fullmatch(options.s3_bucket):
        raise DeployError(f"--s3-bucket {options.s3_bucket!r} is not a bucket's name")
    if not 0 <= options.workers <= WORKERS_MAX:
        raise DeployError(f"--workers {options.workers}: 0 to {WORKERS_MAX} hosts")
    if options.worker_type and not options.workers:
        raise DeployError("--worker-type is for --workers")
    if options.workers:
        refuse_folder(options.settings or ())
    return options


def refuse_folder(settings: tuple[str, ...]) -> None:
    """Raises `DeployError` if uploads shall wait in a folder: workers on other hosts do not see it."""
    for setting in settings:
        name, _, value = setting.partition("=")
        if name == "UPLOADS_URL" and value.strip("'\"").startswith("file:"):
            raise DeployError(
                f"--workers: {setting} is a folder of one host; name s3://bucket/prefix in --env-file, or leave it out"
            )


def read_settings(path: Path) -> tuple[str, ...]:
    """The lines of a file of settings (docs/reference/settings.md), without blank lines and comments.

    Raises:
        DeployError: the file cannot be read, a line is not NAME=VALUE, or a setting is one that `up` makes.
    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DeployError(f"--env-file {path}: {error}") from None
    settings = tuple(line for line in lines if line and not line.startswith("#"))
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#") and not _SETTING.fullmatch(line):
            raise DeployError(f"--env-file {path}, line {number}: not NAME=VALUE")
    for setting in settings:
        if (name := setting.partition("=")[0]) in OWN_SETTINGS | _FIXED:
            raise DeployError(f"--env-file {path}: {name} is not yours to set here")
    return settings
