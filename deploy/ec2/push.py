"""Builds the images of the commit that is checked out, and pushes them to ECR."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import boto3

from deploy.ec2.docker import Docker
from deploy.ec2.errors import DeployError
from deploy.ec2.registry import Registry

ROOT = Path(__file__).parents[2]
ARCHITECTURES = ("amd64", "arm64")
LAST = "darkroom-api"
"""Is pushed after all others: a tag that this repository has is complete."""
_HASH_CHARACTERS = 12
_GIT_SECONDS_MAX = 60
_CPU_TORCH = "--index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple"


class Pushed(NamedTuple):
    registry: str
    """Its host name, such as `123456789012.dkr.ecr.eu-central-1.amazonaws.com`."""
    tag: str
    arch: str
    gpu: bool


def push(session: boto3.Session, *, name: str, arch: str, gpu: bool, root: Path = ROOT) -> Pushed:
    """Push all images that compose builds in `root`, as far as the registry lacks them. Says meanwhile what it does.

    Raises `DeployError` for a dirty tree, without Docker, if a build or a push fails, and before the first push if an
    image is of another architecture. Errors of AWS pass through as botocore's.
    """
    if arch not in ARCHITECTURES:
        raise DeployError(f"--arch is {' or '.join(ARCHITECTURES)}, not {arch}")
    tag = commit_tag(root, arch=arch, gpu=gpu)
    docker = Docker(root)
    native = docker.output("version", "--format", "{{.Server.Arch}}").strip()
    registry = Registry(session)
    login = registry.login()
    environment = {"REGISTRY": f"{login.registry}/", "TAG": tag, "COMPOSE_PROJECT_NAME": name}
    environment["COMPOSE_FILE"] = "docker-compose.yml:docker-compose.gpu.yml" if gpu else "docker-compose.yml"
    if arch != native:
        environment["DOCKER_DEFAULT_PLATFORM"] = f"linux/{arch}"
    docker = Docker(root, environment)

    services = _services(docker)
    for image in services:
        registry.make(_repository(image))
    missing = [image for image in services if not registry.has(_repository(image), tag)]
    if missing:
        _say(f"building {tag} for {arch}")
        torch = os.environ.get("TORCH_PIP_OPTIONS", "" if gpu else _CPU_TORCH)
        arguments = ["--build-arg", f"TORCH_PIP_OPTIONS={torch}", *(services[image] for image in missing)]
        docker.show("compose", "--profile", "*", "build", *arguments)
        for image in missing:
            if (found := image_arch(docker, image)) != arch:
                raise DeployError(f"{image} was built for {found}, not for {arch}: build on a machine of that kind")
        with docker.logged_in(*login) as pusher:
            for image in sorted(missing, key=lambda image: _repository(image) == LAST):
                _say(f"pushing {image}")
                pusher.show("push", "--quiet", image)
    return Pushed(login.registry, tag, arch, gpu)


def is_pushed(session: boto3.Session, registry: str, tag: str) -> bool:
    """Whether all images of a tag are in the registry, which is given by its host name."""
    return tag in pushed_tags(session, registry)


def pushed_tags(session: boto3.Session, registry: str) -> list[str]:
    """Those of which all images are in the registry, the newest first."""
    return Registry(session).tags(LAST, account=registry.partition(".")[0])


def commit_tag(root: Path = ROOT, *, arch: str, gpu: bool) -> str:
    """The tag of the commit that is checked out. Raises `DeployError` if a file differs from it."""
    if changed := _git(root, "status", "--porcelain", "--no-renames", "-z").split("\0")[:-1]:
        files = f"{len(changed)} {'file differs' if len(changed) == 1 else 'files differ'}"
        way_out = "commit, or `git stash --include-untracked`"
        raise DeployError(f"{files} from the commit that the tag would name: {changed[0][3:]}; {way_out}")
    suffix = ("" if arch == "amd64" else f"-{arch}") + ("-gpu" if gpu else "")
    return _git(root, "rev-parse", f"--short={_HASH_CHARACTERS}", "HEAD").strip()[:_HASH_CHARACTERS] + suffix


def image_arch(docker: Docker, image: str) -> str:
    """As Docker names it: `amd64`, `arm64`."""
    return docker.output("image", "inspect", "--format", "{{.Architecture}}", image).strip()


def _services(docker: Docker) -> dict[str, str]:
    """The images that compose builds, each with a service that builds it."""
    config = json.loads(docker.output("compose", "--profile", "*", "config", "--format", "json"))
    return {service["image"]: name for name, service in config["services"].items() if "build" in service}


def _repository(image: str) -> str:
    return image.rpartition("/")[2].partition(":")[0]


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=_GIT_SECONDS_MAX, check=False
        )
    except FileNotFoundError:
        raise DeployError("the git command is not installed, and a tag names a commit") from None
    except subprocess.TimeoutExpired:
        raise DeployError(f"`git {arguments[0]}` did not end within {_GIT_SECONDS_MAX} s") from None
    if done.returncode:
        raise DeployError(f"git: {done.stderr.strip().splitlines()[0]}")
    return done.stdout


def _say(line: str) -> None:
    print(f"darkroom ec2: {line}", file=sys.stderr, flush=True)
