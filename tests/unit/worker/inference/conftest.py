from pathlib import Path

import pytest

from tests.support.networks import thousand_classes
from tests.support.pictures import LIMITS
from worker.inference.packages import check
from worker.inference.packages.export import export

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command `check` measures one round per batch size."""
    monkeypatch.setattr(check, "SECONDS_MAX", 0)


@pytest.fixture
def thousand(tmp_path: Path) -> Path:
    """A package of a network with a thousand classes, for colour images of 224 × 224."""
    export(
        thousand_classes(),
        tmp_path / "thousand",
        limits=LIMITS,
        classes=[f"class {number}" for number in range(1000)],
        input={"channels": 3, "height": 224, "width": 224},
        preprocessing={"mode": "center_crop", "shorter_side": 256, "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
    )
    return tmp_path / "thousand"
