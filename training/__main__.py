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
    RECIPES[arguments.model](arguments.models_dir / arguments.model, arguments.cache)


if __name__ == "__main__":
    main()
