"""`python -m deploy.backup FILE`: what a running stack holds, in one file. docs/BACKUP.md."""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.backup.archive import BackupError, write_backup
from deploy.backup.options import add_place, place_of


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.backup", description="Back up a running stack.")
    parser.add_argument("file", type=Path, help="the file to write, as a tar; readable by its owner alone")
    add_place(parser)
    options = parser.parse_args()
    try:
        place = place_of(options)
        if options.file.exists():
            raise BackupError(f"{options.file} exists: name another file, or remove it")
        with TemporaryDirectory(dir=options.file.absolute().parent, prefix=".backup-") as folder:
            rdb = Path(folder) / "store.rdb"
            with place.held_uploads() as begin_copy:
                place.save(rdb)
                summary = write_backup(options.file, rdb, begin_copy())
    except (BackupError, OSError) as error:
        sys.exit(f"darkroom backup: {error}")
    print(f"{options.file}: {summary}")


if __name__ == "__main__":
    main()
