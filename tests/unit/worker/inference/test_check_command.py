import re
import time
from pathlib import Path

import pytest
import torch

from jobs.model_packages import check_packages
from tests.support.pictures import LIMITS
from tests.support.processes import ROOT
from tests.unit.worker.inference.commands import error_of, export_two_classes, run_command
from worker.inference.classifier import Classifier
from worker.inference.images.limits import ImageLimits
from worker.inference.networks.device import Device
from worker.inference.packages import check
from worker.inference.packages.load import load_package


def test_check_reports_an_error_in_one_line(thousand: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command("check", ROOT / "weights" / "fmnist-mlp")
    assert "3 golden images: results as in the manifest" in capsys.readouterr().out
    (thousand / "program.pt2").write_bytes(b"damaged")
    with pytest.raises(
        SystemExit, match=r"^darkroom inference: .*program.pt2: the sha256 is .*, but the manifest says"
    ):
        run_command("check", thousand)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DEVICE": "gpu"}, "DEVICE: "),
        ({"DEVICE": "cuda"}, "DEVICE is cuda, but torch .* finds no GPUs here"),
    ],
)
def test_a_wrong_setting_is_reported(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert re.search(message, error_of("check", ROOT / "weights" / "fmnist-mlp"))


@pytest.mark.parametrize("threads", [0, -1, 257])
def test_a_wrong_number_of_threads_is_reported(threads: int) -> None:
    line = error_of("check", ROOT / "weights" / "fmnist-mlp", "--threads", threads)
    assert line == f"darkroom inference: --threads: must be from 1 to 256 (got {threads})"


@pytest.mark.parametrize("folder", ["other", "mine@3", "other@2"])
def test_check_refuses_a_folder_that_a_worker_would_refuse(tmp_path: Path, folder: str) -> None:
    export_two_classes(tmp_path / "mine@2")
    (tmp_path / "mine@2").rename(tmp_path / folder)
    (load_error,) = check_packages(tmp_path, [folder])[1].values()
    assert error_of("check", tmp_path / folder) == f"darkroom inference: {load_error}"
    assert load_error.endswith(f"manifest.json: describes mine@2, not {folder}")


def test_a_package_is_checked_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_two_classes(tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    run_command("check", ".")


def test_check_measures_cpu_time_on_a_cpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DEVICE", "cpu")
    run_command("check", ROOT / "weights" / "fmnist-mlp")
    *_, of_64, chosen = capsys.readouterr().out.splitlines()
    assert of_64.endswith(" ms of CPU time per image on the CPU, in float32, threads: 1")
    assert re.fullmatch(r"a worker computes batches of \d+: \d+\.\d{3} ms an image, within 0\.05 s", chosen)


def test_check_computes_on_the_device_and_measures_elapsed_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = ROOT / "weights" / "fmnist-mlp"
    classifier, devices = load_package(package, LIMITS), list[Device]()

    def load_on(_folder: Path, _limits: ImageLimits, device: Device) -> Classifier:
        devices.append(device)
        return classifier

    def no_cpu_time() -> float:
        raise AssertionError("CPU time has no meaning for a GPU")

    monkeypatch.setattr(check, "load_package", load_on)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, {device}")
    monkeypatch.setattr(time, "process_time", no_cpu_time)
    monkeypatch.setenv("DEVICE", "cuda:1")
    run_command("check", package, "--precision", "float32")
    assert devices == [Device(torch.device("cuda:1"), half=False)]
    *_, last, _ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"forward pass of 64: \S+ ms per image on a GPU, cuda:1, in float32", last), last
