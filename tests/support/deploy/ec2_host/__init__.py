"""A container that stands in for an EC2 host, on which the boot script runs as it would there."""

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from deploy.ec2.host.user_data import BootValues, user_data
from deploy.ec2.kept import Environment
from deploy.ec2.workers.certificate import dns_name, draw
from deploy.ec2.workers.parameters import redis_url
from tests.support.deploy.ecr import CERTIFICATES_NAME, REGION, Ecr
from tests.support.processes import ROOT
from tests.support.waiting import wait_until

IMAGE = "darkroom-tests-host"
ZONE = f"{REGION}a"
NAME = "darkroom"
TAG, ENVIRONMENT = f"/{NAME}/tag", f"/{NAME}/environment"
WORKER_TAG, WORKER_ENVIRONMENT = f"/{NAME}/workers/tag", f"/{NAME}/workers/environment"
IP = "203.0.113.7"
"""The kept address. Its DNS name leads to the first host's private one."""
KEY = "a-key-of-at-least-16-characters"
SETTINGS = f"""API_KEYS='{{"tests": "{KEY}"}}'
REDIS_PASSWORD=a-password-of-the-tests
REDIS_WORKER_PASSWORD=another-password-of-the-tests
BIND=0.0.0.0
DOMAIN=localhost
COMPOSE_PROFILES=tls
EDGE_HTTP_PORT=8080  # the stand-in's metadata has port 80
WORKER_CHILDREN=1
"""
COMPOSE_FROM = "https://github.com/docker/compose/releases/download/"
COMMAND_SECONDS_MAX = 900
Done = subprocess.CompletedProcess[str]


def docker(*arguments: str, stdin: str | None = None, check: bool = True) -> Done:
    return subprocess.run(
        ["docker", *arguments],
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=check,
    )


class Account:
    """What `up` makes beside the stack: volume, address, parameters. The volume is a loop device of this machine."""

    def __init__(self, ecr: Ecr, volume_file: Path) -> None:
        self.ecr = ecr
        self.ec2: Any = ecr.session.client("ec2")
        self.ssm: Any = ecr.session.client("ssm")
        self.volume_id = str(self.ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"])
        self.allocation_id = str(self.ec2.allocate_address(Domain="vpc")["AllocationId"])
        self.ssm.put_parameter(Name=ENVIRONMENT, Value=SETTINGS, Type="SecureString", Overwrite=True)
        self._volume_file = volume_file

    def run(self, tag: str) -> None:
        """Set the tag that hosts run from their next boot on."""
        self.ssm.put_parameter(Name=TAG, Value=tag, Type="String", Overwrite=True)

    def open_to_workers(self, tag: str) -> None:
        """As `up --workers` does: the first host opens Redis at its next start or upgrade; worker hosts run `tag`."""
        values = Environment(tuple(SETTINGS.splitlines()))
        drawn = draw(dns_name(IP, REGION))
        password = values.value("REDIS_WORKER_PASSWORD")
        url = redis_url(IP, REGION)
        for name, value in {
            ENVIRONMENT: f"{SETTINGS}REDIS_TLS_PORT=6380\n",
            WORKER_TAG: tag,
            WORKER_ENVIRONMENT: f"REDIS_URL={url}\nREDIS_WORKER_PASSWORD={password}\nUPLOADS_URL=redis:\n",
            f"/{NAME}/workers/redis.crt": drawn.certificate,
            f"/{NAME}/redis.key": drawn.key,
        }.items():
            self.ssm.put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)

    def start_instance(self) -> str:
        (instance,) = self.ec2.run_instances(
            ImageId="ami-12c6146b", MinCount=1, MaxCount=1, Placement={"AvailabilityZone": ZONE}
        )["Instances"]
        return str(instance["InstanceId"])

    def detach(self) -> None:
        self.ec2.detach_volume(VolumeId=self.volume_id, InstanceId=self.holder())

    def holder(self) -> str:
        """The instance that has the volume, or nothing."""
        (volume,) = self.ec2.describe_volumes(VolumeIds=[self.volume_id])["Volumes"]
        return "".join(attachment["InstanceId"] for attachment in volume["Attachments"])

    def address_at(self) -> str:
        (address,) = self.ec2.describe_addresses(AllocationIds=[self.allocation_id])["Addresses"]
        return str(address["InstanceId"])

    def device(self) -> AbstractContextManager[str]:
        """The volume as a block device."""
        return loop_device(self._volume_file)


class Host:
    def __init__(self, account: Account, container: str, instance: str, *, is_worker: bool = False) -> None:
        self.account = account
        self.instance = instance
        self._container = container
        self._is_worker = is_worker
        self.address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", container).stdout.strip()
        self.http = httpx.Client(
            base_url=f"http://{self.address}:5000", headers={"Authorization": f"Bearer {KEY}"}, timeout=60
        )

    def run(self, *command: str, check: bool = True, stdin: str | None = None) -> Done:
        done = docker("exec", "--interactive", self._container, *command, stdin=stdin, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def boot(self, compose_url: str, *, check: bool = True, s3: bool = False, **constants: str) -> Done:
        """Run the user data, as the first boot does. `constants` are other values of the script's."""
        return self.run("bash", check=check, stdin=self._user_data(compose_url, s3=s3, **constants))

    @contextmanager
    def booting(self, compose_url: str) -> Iterator[Callable[[], str]]:
        """Run the user data meanwhile; the block gets its output so far, and its end waits for the script's."""
        log = "/var/log/boot"
        self.run("touch", log)
        with ThreadPoolExecutor() as executor:
            text = self._user_data(compose_url, s3=False)
            boot = executor.submit(self.run, "sh", "-c", f"bash >{log} 2>&1", stdin=text, check=False)
            yield lambda: self.run("cat", log).stdout
            done = boot.result()
        assert done.returncode == 0, self.run("cat", log).stdout

    def _user_data(self, compose_url: str, *, s3: bool, **constants: str) -> str:
        account = self.account
        values = BootValues(
            name=NAME,
            region=REGION,
            registry=account.ecr.host,
            tag_parameter=TAG,
            environment_parameter=ENVIRONMENT,
            volume_id=account.volume_id,
            allocation_id=account.allocation_id,
            gpu=False,
            s3=s3,
        )
        if self._is_worker:
            values = values._replace(
                tag_parameter=WORKER_TAG, environment_parameter=WORKER_ENVIRONMENT, volume_id="", allocation_id=""
            )
        text = user_data(values)
        assert COMPOSE_FROM in text
        text = text.replace(COMPOSE_FROM, compose_url)
        for name, value in constants.items():
            text, count = re.subn(rf"^{name}=\d+", f"{name}={value}", text, flags=re.MULTILINE)
            assert count == 1, name
        return text

    def stop_docker(self) -> None:
        """As a shutdown does."""
        pid = self.run("cat", "/run/docker.pid").stdout.strip()
        self.run("kill", pid)
        wait_until(lambda: self.run("test", "-e", f"/proc/{pid}/exe", check=False).returncode, what="the engine's end")

    def command(self, *arguments: str, check: bool = True) -> Done:
        return self.run("darkroom-host", *arguments, check=check)

    def containers(self, service: str) -> list[str]:
        """Ids of the service's containers that run."""
        return self.command("compose", "ps", "--quiet", service).stdout.split()

    def tag_of(self, service: str) -> str:
        (container,) = self.containers(service)
        return (
            self.run("docker", "inspect", "--format", "{{.Config.Image}}", container).stdout.strip().rpartition(":")[2]
        )

    def power_off(self) -> None:
        """As a host that dies: nothing is told to stop."""
        self.http.close()
        docker("rm", "--force", "--volumes", self._container)


@contextmanager
def loop_device(volume_file: Path) -> Iterator[str]:
    """A volume of 20 GiB, sparse, as a block device."""
    volume_file.touch()
    with volume_file.open("r+b") as file:
        file.truncate(20 << 30)
    command = ["losetup", "--find", "--show", str(volume_file)]
    device = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextmanager
def started_host(account: Account, device: str, *options: str, first: Host | None = None) -> Iterator[Host]:
    """A host on which nothing has run yet, with options of docker's. It has the volume's device, attached or not.

    With `first` it is a worker host, which finds that one by its DNS name, and has no device.
    """
    docker("build", "--quiet", "--tag", IMAGE, str(ROOT / "tests/support/deploy/ec2_host"))
    instance = account.start_instance()
    ecr = account.ecr
    if first is not None:
        options = (*options, "--dns", "169.254.169.253", "--env", f"NAMES={dns_name(IP, REGION)} {first.address}")
    by_id = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{account.volume_id.replace('-', '')}"
    container = docker(
        "run",
        "--detach",
        "--init",
        *("--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE"),  # mount, guard, docker exec
        *("--security-opt", "seccomp=unconfined"),
        *(("--device", f"{device}:{by_id}") if first is None else ()),
        *("--tmpfs", "/run", "--volume", "/var/lib/docker"),
        *("--add-host", f"{ecr.host}:host-gateway", "--add-host", "aws:host-gateway"),
        *("--volume", f"{ecr.authority}:{CERTIFICATES_NAME}/{ecr.host}/ca.crt:ro"),
        *("--env", f"AWS_ENDPOINT_URL=http://aws:{ecr.moto_port}", "--env", f"INSTANCE={instance}"),
        *options,
        IMAGE,
    ).stdout.strip()
    host = Host(account, container, instance, is_worker=first is not None)
    try:
        wait_until(lambda: _metadata_answers(host), what="the instance metadata")
        yield host
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # it may be gone
            host.power_off()


def _metadata_answers(host: Host) -> bool:
    return host.run("curl", "--silent", "http://169.254.169.254/", check=False).returncode == 0


def is_written(sparse: Path) -> bool:
    """Whether a sparse file, maybe larger than the memory, has any byte but zeros."""
    with sparse.open("rb") as file, suppress(OSError):  # of the seek: no data after this position
        while True:
            file.seek(os.lseek(file.fileno(), file.tell(), os.SEEK_DATA))
            if any(file.read(1 << 20)):
                return True
    return False
