"""What `push` refuses before it asks Docker or AWS for anything."""

import re
import subprocess
from pathlib import Path

import boto3
import pytest

from deploy.ec2.errors import DeployError
from deploy.ec2.push import commit_tag, push


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    _git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("ignored\n")
    (tmp_path / "kept").write_text("a")
    _git(tmp_path, "add", "--all")
    _git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "m")
    return tmp_path


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("arch", "gpu", "suffix"),
    [("amd64", False, ""), ("amd64", True, "-gpu"), ("arm64", False, "-arm64"), ("arm64", True, "-arm64-gpu")],
)
def test_a_tag_names_commit_and_kind(repository: Path, *, arch: str, gpu: bool, suffix: str) -> None:
    (repository / "ignored").write_text("files that git ignores do not count")
    assert commit_tag(repository, arch=arch, gpu=gpu) == _git(repository, "rev-parse", "HEAD")[:12] + suffix


@pytest.mark.parametrize("change", ["kept", "untracked file"])
def test_a_tree_that_differs_from_the_commit_is_refused(repository: Path, change: str) -> None:
    (repository / change).write_text("b")
    with pytest.raises(DeployError, match=rf"^1 file .*{change}"):
        commit_tag(repository, arch="amd64", gpu=False)


@pytest.mark.parametrize("name", ["no repository", "no commit"])
def test_a_folder_without_a_commit_is_refused(tmp_path: Path, name: str) -> None:
    if name == "no commit":
        _git(tmp_path, "init", "--quiet")
    with pytest.raises(DeployError) as refused:
        commit_tag(tmp_path, arch="amd64", gpu=False)
    assert re.match(r"^git: [^\n]+$", str(refused.value))


def test_an_unknown_architecture_is_refused(repository: Path) -> None:
    with pytest.raises(DeployError, match="amd64 or arm64, not x86_64"):
        push(boto3.Session(region_name="eu-central-1"), name="darkroom", arch="x86_64", gpu=False, root=repository)


@pytest.mark.parametrize("missing", ["docker", "git"])
def test_a_command_that_is_not_installed_is_one_line(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    path = tmp_path_factory.mktemp("bin")
    if missing != "git":
        (path / "git").symlink_to("/usr/bin/git")
    monkeypatch.setenv("PATH", str(path))
    with pytest.raises(DeployError, match=rf"^the {missing} command is not installed[^\n]*$"):
        push(boto3.Session(region_name="eu-central-1"), name="darkroom", arch="amd64", gpu=False, root=repository)
