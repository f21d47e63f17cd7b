"""The options that say which stack: those of backup and of restore."""

import argparse
from pathlib import Path

from deploy.backup.compose import ComposePlace
from deploy.backup.places import Place


def add_place(parser: argparse.ArgumentParser) -> None:
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--compose", action="store_true", help="the stack that `docker compose` runs in this folder")
    place.add_argument("--data-dir", type=Path, help="the data folder of `make run`: data/port-8000, or DATA_DIR")
    parser.add_argument("--uploads", type=Path, help="the folder of UPLOADS_URL, if it is not uploads/ in --data-dir")


def place_of(options: argparse.Namespace) -> Place:
    if options.compose:
        return ComposePlace()
    from deploy.backup.local import LocalPlace  # noqa: PLC0415 - with compose, Python alone is enough

    data_dir = options.data_dir.resolve()
    return LocalPlace(data_dir, (options.uploads or data_dir / "uploads").resolve())
