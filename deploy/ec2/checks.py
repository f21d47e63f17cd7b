"""What `up` looks at before it makes anything: the host that it would start, and whether it can."""

import re
from collections import Counter
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from deploy.ec2.aws import Aws, code_of
from deploy.ec2.errors import DeployError
from deploy.ec2.kept import Volume
from deploy.ec2.options import UpOptions

MEMORY_MIB_MIN, VCPUS_MIN = 3_500, 2
"""Redis takes up to 1 GiB, the processes of a worker 350 MiB each; compose gives the services up to two CPUs each."""
_ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}
_AMI = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{}"
_GPU_AMI = "/aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended/image_id"
_QUOTA_URL = "https://console.aws.amazon.com/servicequotas/home/services/ec2/quotas/"


class Quota(NamedTuple):
    code: str
    name: str


_FAMILY_OF = dict.fromkeys(("g", "gr", "vt"), "gpu") | dict.fromkeys(
    ("a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"), "standard"
)
"""By the letters before the generation's number."""
_QUOTAS = {
    ("gpu", False): Quota("L-DB2E81BA", "Running On-Demand G and VT instances"),
    ("gpu", True): Quota("L-3819A6DF", "All G and VT Spot Instance Requests"),
    ("standard", False): Quota("L-1216C47A", "Running On-Demand Standard instances"),
    ("standard", True): Quota("L-34B43A08", "All Standard Spot Instance Requests"),
}


class HostType(NamedTuple):
    name: str
    arch: str
    """As images are tagged: `amd64` or `arm64`."""
    vcpus: int
    memory_mib: int
    image_source: str
    """The public SSM parameter with the newest AMI for it."""


class Place(NamedTuple):
    subnet_id: str
    vpc_id: str
    zone: str


def host_type(aws: Aws, options: UpOptions) -> HostType:
    """The type that was asked for.

    Raises:
        DeployError: there is no such type, or Darkroom does not run on it.
    """
    return _host_type(aws, "--type", options.instance_type, gpu=options.gpu)


def worker_host_type(aws: Aws, options: UpOptions, host: HostType) -> HostType | None:
    """That of the hosts with workers alone, if there are to be some. Raises `DeployError` as `host_type`."""
    if not options.workers:
        return None
    found = _host_type(aws, "--worker-type", options.worker_instance_type, gpu=options.gpu)
    if found.arch != host.arch:
        raise DeployError(
            f"--worker-type {found.name} is {found.arch}, and {host.name} is {host.arch}: one `push` is for both"
        )
    return found


def _host_type(aws: Aws, option: str, name: str, *, gpu: bool) -> HostType:
    try:
        (info,) = aws.ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
    except ClientError as error:
        if code_of(error) in ("InvalidInstanceType", "InvalidParameterValue"):
            raise DeployError(f"{option} {name}: {aws.region} has no such instance type") from None
        raise
    kinds = info["ProcessorInfo"]["SupportedArchitectures"]
    arch = next((ours for theirs, ours in _ARCHITECTURES.items() if theirs in kinds), None)
    vcpus, memory_mib = info["VCpuInfo"]["DefaultVCpus"], info["MemoryInfo"]["SizeInMiB"]
    if arch is None:
        raise DeployError(f"{option} {name} is for {' and '.join(kinds)}: Darkroom has images for x86_64 and arm64")
    if memory_mib < MEMORY_MIB_MIN or vcpus < VCPUS_MIN:
        raise DeployError(f"{option} {name} has {vcpus} vCPUs and {memory_mib} MiB: Darkroom takes 2 and 4 GiB or more")
    if gpu and (arch != "amd64" or not _has_nvidia(info)):
        raise DeployError(
            f"{option} {name} has no NVIDIA GPU beside x86_64 CPUs, which --gpu needs: such as g4dn.xlarge"
        )
    machine = "arm64" if arch == "arm64" else "x86_64"
    return HostType(name, arch, vcpus, memory_mib, _GPU_AMI if gpu else _AMI.format(machine))


def _has_nvidia(info: dict[str, Any]) -> bool:
    return any(gpu["Manufacturer"] == "NVIDIA" for gpu in info.get("GpuInfo", {}).get("Gpus", []))


def place(aws: Aws, options: UpOptions, volume: Volume | None) -> Place:
    """The subnet: the one given, or a default subnet whose zone has the types; where the volume is, if there is one.

    Raises:
        DeployError: there is none.
    """
    found = _place_of_host(aws, options, volume)
    if options.workers and found.zone not in _zones_with(aws, options.worker_instance_type):
        raise DeployError(
            f"--worker-type {options.worker_instance_type} is not to be had in {found.zone}, the zone of the first host"
        )
    return found


def _place_of_host(aws: Aws, options: UpOptions, volume: Volume | None) -> Place:
    zones = _zones_with(aws, options.instance_type)
    if options.subnet:
        found = _subnet(aws, options.subnet)
        if found.zone not in zones:
            raise DeployError(f"--type {options.instance_type} is not to be had in {found.zone}, the zone of --subnet")
        if volume is not None and volume.zone != found.zone:
            raise DeployError(
                f"--subnet {found.subnet_id} is in {found.zone}, the data volume {volume.id} in {volume.zone}"
            )
        return found
    filters = [{"Name": "default-for-az", "Values": ["true"]}]
    subnets = sorted(map(_place, aws.ec2.describe_subnets(Filters=filters)["Subnets"]), key=lambda it: it.zone)
    if not subnets:
        raise DeployError(f"{aws.region} has no default subnet: pass --subnet, or run `aws ec2 create-default-vpc`")
    if volume is not None:
        subnets = [subnet for subnet in subnets if subnet.zone == volume.zone]
        if not subnets:
            raise DeployError(
                f"{volume.zone}, where the data volume {volume.id} is, has no default subnet: pass --subnet"
            )
    fitting = [subnet for subnet in subnets if subnet.zone in zones]
    if not fitting:
        known = ", ".join(subnet.zone for subnet in subnets)
        raise DeployError(f"--type {options.instance_type} is not to be had in {known}: choose another --type")
    return fitting[0]


def _subnet(aws: Aws, subnet_id: str) -> Place:
    try:
        (found,) = aws.ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"]
    except ClientError as error:
        if code_of(error).startswith("InvalidSubnetID"):
            raise DeployError(f"--subnet {subnet_id}: {aws.region} has no such subnet") from None
        raise
    return _place(found)


def _place(subnet: dict[str, Any]) -> Place:
    return Place(subnet["SubnetId"], subnet["VpcId"], subnet["AvailabilityZone"])


def _zones_with(aws: Aws, instance_type: str) -> set[str]:
    offered = aws.ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [instance_type]}]
    )["InstanceTypeOfferings"]
    return {offer["Location"] for offer in offered}


def check_quotas(aws: Aws, hosts: list[HostType], *, spot: bool) -> list[str]:
    """Refuse hosts for which the account has too few vCPUs; new accounts have none for GPUs.

    Returns:
        A line for each quota that could not be read.

    Raises:
        DeployError: says which quota, and where to ask for more.
    """
    by_quota: dict[Quota | None, list[HostType]] = {}
    for host in hosts:
        by_quota.setdefault(_quota_of(host, spot=spot), []).append(host)
    return [line for quota, some in by_quota.items() if (line := _check_quota(aws, quota, some))]


def _quota_of(host: HostType, *, spot: bool) -> Quota | None:
    letters = re.match("[a-z]*", host.name)
    family = _FAMILY_OF.get(letters[0]) if letters else None
    return _QUOTAS.get((family or "", spot))


def _check_quota(aws: Aws, quota: Quota | None, hosts: list[HostType]) -> str:
    names = " and ".join(
        f"{number} × {name}" if number > 1 else name for name, number in Counter(it.name for it in hosts).items()
    )
    if quota is None:
        return f"the account's quota for {names} was not checked"
    try:
        vcpus = aws.quotas.get_service_quota(ServiceCode="ec2", QuotaCode=quota.code)["Quota"]["Value"]
    except ClientError as error:
        return f"the account's quota for {names} was not checked ({code_of(error)})"
    if vcpus < (needed := sum(host.vcpus for host in hosts)):
        raise DeployError(
            f"the account's quota of `{quota.name}` in {aws.region} is {vcpus:.0f} vCPUs, and {names} takes "
            f"{needed} (new accounts have 0 for GPUs): ask for more at {_QUOTA_URL}{quota.code}"
        )
    return ""


def check_dns_names(aws: Aws, vpc_id: str) -> None:
    """Refuse a VPC in which the name of the kept address does not lead to the first host's private address."""
    for attribute, option in (("DnsSupport", "dns-support"), ("DnsHostnames", "dns-hostnames")):
        found = aws.ec2.describe_vpc_attribute(VpcId=vpc_id, Attribute=f"enable{attribute}")
        if not found[f"Enable{attribute}"]["Value"]:
            raise DeployError(
                f"--workers: {vpc_id} has enable{attribute} off, and worker hosts find the first one by its DNS name: "
                f"`aws ec2 modify-vpc-attribute --vpc-id {vpc_id} --enable-{option}`, or another --subnet"
            )


def check_key_pair(aws: Aws, key_name: str) -> None:
    try:
        aws.ec2.describe_key_pairs(KeyNames=[key_name])
    except ClientError as error:
        if code_of(error) == "InvalidKeyPair.NotFound":
            raise DeployError(f"--key-name {key_name}: {aws.region} has no such key pair") from None
        raise


def newest_image(aws: Aws, source: str) -> str:
    """The AMI that a public SSM parameter names now."""
    image: str = aws.ssm.get_parameter(Name=source)["Parameter"]["Value"]
    return image
