"""Images of a small project go to a real registry under ECR's host name; skipped without a Docker engine."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.ec2.errors import DeployError
from deploy.ec2.push import Pushed, commit_tag, is_pushed, push, pushed_tags
from tests.support.archives import make_tar
from tests.support.deploy import ecr as ecr_support
from tests.support.deploy.compose import reason_to_skip
from tests.support.deploy.ecr import Ecr, serving_ecr

_REASON = reason_to_skip() or ecr_support.reason_to_skip()
pytestmark = pytest.mark.skipif(bool(_REASON), reason=f"no push: {_REASON}")

COMPOSE = """
services:
  api: {build: api, image: "${REGISTRY:-}darkroom-api:${TAG:-latest}"}
  worker: {build: worker, image: "${REGISTRY:-}darkroom-worker:${TAG:-latest}"}
  outbound: {build: worker, image: "${REGISTRY:-}darkroom-worker:${TAG:-latest}"}
  edge: {build: edge, image: "${REGISTRY:-}darkroom-edge:${TAG:-latest}", profiles: [tls]}
  other: {image: busybox}
"""
BASE = "darkroom-tests-base"
IMAGES = ["darkroom-api", "darkroom-edge", "darkroom-worker"]


class Project:
    """A repository with a compose file, whose images hold one file each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "docker-compose.yml").write_text(COMPOSE)
        (root / "docker-compose.gpu.yml").write_text("services: {worker: {mem_limit: 8g}}\n")
        for service in ("api", "worker", "edge"):
            (root / service).mkdir()
            (root / service / "Dockerfile").write_text(
                "FROM scratch\nARG TORCH_PIP_OPTIONS=unset\nCOPY Dockerfile /\nLABEL torch=$TORCH_PIP_OPTIONS\n"
            )
        self.git("init", "--quiet")
        self.commit()

    def base_on(self, arch: str) -> None:
        """Build from a base image of this architecture."""
        base = f"{BASE}:{arch}"
        layer = bytes(1024)  # an empty archive
        root = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
        files = {
            "config.json": json.dumps({"architecture": arch, "os": "linux", "rootfs": root}).encode(),
            "layer.tar": layer,
            "manifest.json": json.dumps(
                [{"Config": "config.json", "RepoTags": [base], "Layers": ["layer.tar"]}]
            ).encode(),
        }
        subprocess.run(["docker", "load"], input=make_tar(files), capture_output=True, check=True)
        for dockerfile in self.root.glob("*/Dockerfile"):
            dockerfile.write_text(dockerfile.read_text().replace("FROM scratch", f"FROM {base}"))
        self.commit()

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=self.root, capture_output=True, text=True, check=True
        ).stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "m")


@pytest.fixture(scope="module")
def ecr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ecr]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_BUILDKIT", "0")
        with serving_ecr(tmp_path_factory.mktemp("ecr")) as ecr:
            yield ecr


@pytest.fixture
def project(tmp_path: Path, ecr: Ecr) -> Iterator[Project]:
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project")
    yield project
    for name in (f"{ecr.host}/darkroom-*", BASE):  # first the images that were built from the base
        if images := set(_docker("images", "--quiet", "--filter", f"reference={name}").split()):
            _docker("rmi", "--force", *images)


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


def _push(ecr: Ecr, project: Project, *, arch: str = "amd64", gpu: bool = False) -> Pushed:
    pushed = push(ecr.session, name="darkroom", arch=arch, gpu=gpu, root=project.root)
    ecr.sync()
    return pushed


def _pushed_images(ecr: Ecr, tag: str) -> list[str]:
    return [repository for repository in ecr.repositories() if tag in ecr.tags(repository)]


def test_a_push_makes_repositories_and_can_be_pulled(ecr: Ecr, project: Project, tmp_path: Path) -> None:
    pushed = _push(ecr, project)
    assert pushed == Pushed(ecr.host, project.git("rev-parse", "HEAD")[:12], "amd64", gpu=False)
    assert _pushed_images(ecr, pushed.tag) == IMAGES
    assert is_pushed(ecr.session, ecr.host, pushed.tag)
    assert pushed_tags(ecr.session, ecr.host)[0] == pushed.tag
    for repository in ecr.client.describe_repositories(repositoryNames=IMAGES)["repositories"]:
        assert repository["imageTagMutability"] == "IMMUTABLE"
        assert repository["imageScanningConfiguration"] == {"scanOnPush": True}
        policy = ecr.client.get_lifecycle_policy(repositoryName=repository["repositoryName"])["lifecyclePolicyText"]
        (rule,) = json.loads(policy)["rules"]
        assert rule["selection"] == {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 20}

    image = f"{ecr.host}/darkroom-worker:{pushed.tag}"
    before = _docker("image", "inspect", "--format", "{{.Id}}", image)
    _docker("rmi", image)
    login = {**os.environ, "DOCKER_CONFIG": str(tmp_path)}
    command = ["docker", "login", "--username", ecr.user, "--password-stdin", ecr.host]
    subprocess.run(command, input=ecr.password, text=True, env=login, check=True, capture_output=True)
    subprocess.run(["docker", "pull", "--quiet", image], env=login, check=True, capture_output=True)
    assert _docker("image", "inspect", "--format", "{{.Id}}", image) == before


def test_the_token_stays_on_no_disk(ecr: Ecr, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's own configuration is neither read for credentials nor written."""
    own = project.root.parent / "home"
    own.mkdir()
    plugins = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "cli-plugins"
    if plugins.exists():
        (own / "cli-plugins").symlink_to(plugins)
    text = json.dumps({"auths": {ecr.host: {"auth": "d3Jvbmc6d3Jvbmc="}}, "credsStore": "tests"})
    (own / "config.json").write_text(text)
    helper = own / "docker-credential-tests"  # in place of the system's keychain
    helper.write_text(f'#!/bin/sh\n[ "$1" = list ] || echo "$1" >>{own}/asked\necho "{{}}"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{own}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(own))
    monkeypatch.setattr("tempfile.tempdir", str(project.root.parent))
    _push(ecr, project)
    assert (own / "config.json").read_text() == text
    assert not (own / "asked").exists()
    assert sorted(path.name for path in project.root.parent.iterdir()) == ["home", "project"]


def test_a_second_push_builds_and_pushes_only_what_is_missing(
    ecr: Ecr, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.commit()
    pushed = push(ecr.session, name="darkroom", arch="amd64", gpu=False, root=project.root)
    ecr.sync("darkroom-edge", "darkroom-worker")  # as if it had been interrupted here
    assert not is_pushed(ecr.session, ecr.host, pushed.tag), "the api image is last, so a tag that it has is complete"
    capfd.readouterr()
    _push(ecr, project)
    assert [line for line in capfd.readouterr().err.splitlines() if "pushing" in line] == [
        f"darkroom ec2: pushing {ecr.host}/darkroom-api:{pushed.tag}"
    ]
    assert is_pushed(ecr.session, ecr.host, pushed.tag)
    _push(ecr, project)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("arch", "gpu", "suffix", "options", "expected"),
    [
        ("amd64", False, "", None, "--index-url https://download.pytorch.org/whl/cpu --extra-index-url"),
        ("amd64", True, "-gpu", None, ""),
        ("arm64", False, "-arm64", "--index-url mine", "--index-url mine"),
        ("arm64", True, "-arm64-gpu", "", ""),
    ],
)
def test_each_kind_of_image_has_its_own_tag_and_build_of_torch(
    ecr: Ecr,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    *,
    arch: str,
    gpu: bool,
    suffix: str,
    options: str | None,
    expected: str,
) -> None:
    if options is None:
        monkeypatch.delenv("TORCH_PIP_OPTIONS", raising=False)
    else:
        monkeypatch.setenv("TORCH_PIP_OPTIONS", options)
    project.base_on(arch)
    pushed = _push(ecr, project, arch=arch, gpu=gpu)
    assert pushed.tag == project.git("rev-parse", "HEAD")[:12] + suffix
    assert _pushed_images(ecr, pushed.tag) == IMAGES
    image = f"{ecr.host}/darkroom-worker:{pushed.tag}"
    built_for, torch = (
        _docker("image", "inspect", "--format", '{{.Architecture}}|{{index .Config.Labels "torch"}}', image)
        .strip()
        .split("|")
    )
    assert built_for == arch
    assert torch.startswith(expected)
    assert bool(torch) == bool(expected)


def test_an_image_of_another_architecture_is_not_pushed(ecr: Ecr, project: Project) -> None:
    with pytest.raises(DeployError, match=r"darkroom-\w+:\w+-arm64 was built for amd64, not for arm64"):
        push(ecr.session, name="darkroom", arch="arm64", gpu=False, root=project.root)
    assert _pushed_images(ecr, commit_tag(project.root, arch="arm64", gpu=False)) == []


def test_a_build_that_fails_pushes_nothing(ecr: Ecr, project: Project) -> None:
    (project.root / "edge" / "Dockerfile").write_text("FROM scratch\nCOPY missing /\n")
    project.commit()
    with pytest.raises(DeployError, match=r"^`docker compose`: .*missing.*"):
        push(ecr.session, name="darkroom", arch="amd64", gpu=False, root=project.root)
    assert _pushed_images(ecr, commit_tag(project.root, arch="amd64", gpu=False)) == []


def test_an_engine_that_does_not_answer_is_one_line(
    ecr: Ecr, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///missing.sock")
    with pytest.raises(DeployError, match=r"^`docker version`: [^\n]*missing.sock[^\n]*$"):
        push(ecr.session, name="darkroom", arch="amd64", gpu=False, root=project.root)


def test_a_registry_that_refuses_is_one_line(ecr: Ecr, project: Project) -> None:
    project.commit()
    with ecr.refusing(), pytest.raises(DeployError, match=r"^`docker login`: [^\n]*401 Unauthorized[^\n]*$"):
        push(ecr.session, name="darkroom", arch="amd64", gpu=False, root=project.root)
