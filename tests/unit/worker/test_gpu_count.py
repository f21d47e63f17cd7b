from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.errors import SettingsError
from jobs.settings import load
from worker.settings import WorkerSettings


@pytest.mark.parametrize(
    ("device", "visible", "with_cuda", "children"),
    [
        ("auto", None, True, 4),
        ("cuda", "0, 2,3", True, 3),
        ("cuda:1", None, True, 1),
        ("cpu", None, True, 7),
        ("auto", "-1", True, 7),
        ("auto", "", True, 7),
        ("auto", None, False, 7),
    ],
)
def test_a_worker_has_one_child_per_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, visible: str | None, *, with_cuda: bool, children: int
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia10", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    (tmp_path / "lib").mkdir()
    if with_cuda:
        (tmp_path / "lib" / "libtorch_cuda.so").touch()
    monkeypatch.setattr("worker.gpu_count.DEVICES", tmp_path)
    monkeypatch.setattr("worker.gpu_count.find_spec", lambda _: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    monkeypatch.delenv("WORKER_CHILDREN", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert WorkerSettings(device=device).worker_children == children


def test_an_invalid_device_is_the_only_setting_that_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "gpu")
    monkeypatch.delenv("WORKER_CHILDREN", raising=False)
    with pytest.raises(SettingsError, match=r"^DEVICE: String should match pattern [^;]* \(got 'gpu'\)$"):
        load(WorkerSettings)
