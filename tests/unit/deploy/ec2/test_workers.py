"""What a worker host is told, and the name by which it finds the first one."""

import pytest

from deploy.ec2.checks import HostType
from deploy.ec2.kept import Environment
from deploy.ec2.workers.certificate import dns_name
from deploy.ec2.workers.parameters import worker_environment

URL = "rediss://first:6380/0"


@pytest.mark.parametrize(
    ("region", "name"),
    [
        ("eu-central-1", "ec2-203-0-113-7.eu-central-1.compute.amazonaws.com"),
        ("us-east-1", "ec2-203-0-113-7.compute-1.amazonaws.com"),
        ("cn-north-1", "ec2-203-0-113-7.cn-north-1.compute.amazonaws.com.cn"),
    ],
)
def test_the_name_is_that_of_ec2(region: str, name: str) -> None:
    assert dns_name("203.0.113.7", region) == name


def told(type_: HostType, *settings: str, gpu: bool = False) -> Environment:
    first = Environment(
        ("API_KEYS={}", "REDIS_PASSWORD=a", "REDIS_WORKER_PASSWORD=b", "REDIS_TLS_PORT=6380", *settings)
    )
    return worker_environment(first, URL, type_, gpu=gpu)


@pytest.mark.parametrize(
    ("vcpus", "memory_mib", "children"), [(2, 4096, "2"), (8, 16_384, "8"), (16, 8192, "7"), (2, 3584, "2")]
)
def test_workers_have_the_host_for_themselves(vcpus: int, memory_mib: int, children: str) -> None:
    environment = told(HostType("x", "amd64", vcpus, memory_mib, ""))
    assert environment.value("WORKER_CPUS") == str(vcpus)
    assert environment.value("WORKER_MEMORY_LIMIT") == f"{memory_mib - 1024}m"
    assert environment.value("WORKER_CHILDREN") == children


def test_a_host_with_a_gpu_has_the_children_of_compose() -> None:
    environment = told(HostType("g4dn.xlarge", "amd64", 4, 16_384, ""), gpu=True)
    assert (environment.value("WORKER_CHILDREN"), environment.value("WORKER_MEMORY_LIMIT")) == ("", "15360m")


def test_settings_of_the_operator_stand() -> None:
    environment = told(
        HostType("x", "amd64", 8, 16_384, ""), "WORKER_CHILDREN=3", "MODEL='a'", "PORT=80", "ROOT_PATH=/x"
    )
    assert environment.lines == (
        f"REDIS_URL={URL}",
        "REDIS_WORKER_PASSWORD=b",
        "UPLOADS_URL=redis:",
        "WORKER_CHILDREN=3",
        "MODEL='a'",
    )
