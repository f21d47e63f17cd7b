"""`python -m training MODEL`: train a model package and write it to `weights/`."""

import argparse
from pathlib import Path

from training import fmnist_mlp

RECIPES = {fmnist_mlp.NAME: fmnist_mlp.train}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training")
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("--models-dir", type=Path, default=Path("weights"))
    parser.add_argument("--cache", type=Path, default=Path("data/training"), help="for downloads and logs")
    arguments = parser.parse_args()
    package = arguments.models_dir / arguments.model
    manifest = RECIPES[arguments.model](package, arguments.cache)
    print(f"{manifest.test_accuracy:.2%} right of {manifest.test_set}; the package is in {package}")


if __name__ == "__main__":
    main()
