"""The parameters of worker hosts: what they may read, and the key of Redis' certificate, which they may not."""

from deploy.ec2.aws import Aws
from deploy.ec2.checks import HostType
from deploy.ec2.kept import REDIS_TLS_PORT, Address, Environment, Kept
from deploy.ec2.workers.certificate import dns_name, draw
from worker.settings import WorkerSettings

_TLS = "/etc/darkroom/tls/redis.crt"
_OF_COMPOSE = frozenset({"WORKER_CPUS", "WORKER_MEMORY_LIMIT", "WORKER_PIDS_LIMIT"})
_OF_REDIS = frozenset({"REDIS_PASSWORD", "REDIS_URL", "REDIS_USERNAME", "UPLOADS_URL"})
_SYSTEM_MIB = 1024
"""What a worker host leaves to its system."""
_CHILD_MIB = 1024
"""A process with a small model and one of the largest images; see docs/decisions/0042-allocator.md."""


class WorkerParameters:
    def __init__(self, aws: Aws, kept: Kept) -> None:
        self._aws = aws
        self._kept = kept
        self.environment_parameter = f"/{aws.name}/workers/environment"
        self.tag_parameter = f"/{aws.name}/workers/tag"
        self._certificate_parameter = f"/{aws.name}/workers/redis.crt"
        self._key_parameter = f"/{aws.name}/redis.key"

    def environment(self) -> Environment | None:
        text = self._kept.parameter(self.environment_parameter)
        return None if text is None else Environment(tuple(text.splitlines()))

    def tag(self) -> str | None:
        return self._kept.parameter(self.tag_parameter)

    def write_environment(self, environment: Environment) -> None:
        self._kept.put(self.environment_parameter, environment.text(), is_secret=True)

    def write_tag(self, tag: str) -> None:
        self._kept.put(self.tag_parameter, tag)

    def make_certificate(self, address: Address, before: Environment | None) -> None:
        """Draw it, unless there is one of this address. The key is written last: without it, it is drawn again."""
        is_of_address = before is not None and before.value("REDIS_URL") == redis_url(address.ip, self._aws.region)
        if is_of_address and self._kept.parameter(self._key_parameter) is not None:
            return
        drawn = draw(dns_name(address.ip, self._aws.region))
        self._kept.put(self._certificate_parameter, drawn.certificate)
        self._kept.put(self._key_parameter, drawn.key, is_secret=True)

    def wanted(self, first: Environment, address: Address, worker: HostType, *, gpu: bool) -> Environment:
        """The `.env` of a worker host: how to reach Redis, and of the first host's settings those of a worker."""
        return worker_environment(first, redis_url(address.ip, self._aws.region), worker, gpu=gpu)

    def check(self, first: Environment, worker: HostType, *, gpu: bool) -> None:
        """Raises `DeployError` if SSM would not take the environment, whatever address there will be."""
        url = redis_url("255.255.255.255", self._aws.region)
        worker_environment(first, url, worker, gpu=gpu).check(self.environment_parameter)

    def delete(self) -> None:
        """All of them: without the address, the certificate is of no use."""
        for name in (
            self.environment_parameter,
            self.tag_parameter,
            self._certificate_parameter,
            self._key_parameter,
        ):
            self._kept.delete_parameter(name)


def redis_url(ip: str, region: str) -> str:
    return f"rediss://{dns_name(ip, region)}:{REDIS_TLS_PORT}/0?ssl_ca_certs={_TLS}"


def worker_environment(first: Environment, url: str, worker: HostType, *, gpu: bool) -> Environment:
    """No key of the API's clients is in it, and S3's only if the uploads are there."""
    values = {
        "REDIS_URL": url,
        "REDIS_WORKER_PASSWORD": first.value("REDIS_WORKER_PASSWORD"),
        "UPLOADS_URL": first.uploads_url,
    }
    names = {name.upper() for name in WorkerSettings.model_fields} - _OF_REDIS | _OF_COMPOSE
    if not first.uploads_url.startswith("s3:"):
        names = {name for name in names if not name.startswith("S3_")}
    settings = [line for line in first.lines if line.partition("=")[0] in names]
    given = {line.partition("=")[0] for line in settings}
    if not given & {"WORKER_CHILDREN", *_OF_COMPOSE}:  # nobody else is on the host
        values |= {"WORKER_CPUS": str(worker.vcpus), "WORKER_MEMORY_LIMIT": f"{worker.memory_mib - _SYSTEM_MIB}m"}
        if not gpu:
            children = min(worker.vcpus, (worker.memory_mib - _SYSTEM_MIB) // _CHILD_MIB)
            values |= {"WORKER_CHILDREN": str(max(2, children))}
    return Environment((*(f"{name}={value}" for name, value in values.items()), *settings))
