"""`python -m deploy.restore FILE`: a stack as it was when `python -m deploy.backup` wrote the file. docs/BACKUP.md."""

import argparse
import shutil
import sys
import tarfile
import time
from pathlib import Path
from typing import IO

from deploy.backup.archive import RDB, UPLOADS, BackupError, check_backup, contents
from deploy.backup.options import add_place, place_of
from deploy.backup.places import Place


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.restore", description="Restore a stack that is stopped.")
    parser.add_argument("file", type=Path, help="what `python -m deploy.backup` has written")
    parser.add_argument("--replace", action="store_true", help="set aside the data that is there")
    add_place(parser)
    options = parser.parse_args()
    try:
        summary = check_backup(options.file)
        restore(options.file, place_of(options), replace=options.replace)
    except (BackupError, OSError) as error:
        sys.exit(f"darkroom restore: {error}")
    print(f"restored the backup {summary}. Start the stack: what was accepted by then goes on.")


def restore(file: Path, place: Place, *, replace: bool) -> None:
    """Changes nothing that a server reads before the backup is known to be good.

    Raises:
        BackupError
        OSError
    """
    with place.stopped() as check:
        if not replace and place.is_used():
            raise BackupError("there is data already: --replace sets it aside, as *.replaced-TIME beside the restored")
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        place.store_rdb(lambda out: _write_rdb(file, out), check)
        place.put_uploads(lambda out: _write_uploads(file, out), stamp)
        place.commit_rdb(stamp)


def _write_rdb(file: Path, out: IO[bytes]) -> None:
    for name, _, content in contents(file):
        if name == RDB:
            shutil.copyfileobj(content, out)


def _write_uploads(file: Path, out: IO[bytes]) -> None:
    with tarfile.open(fileobj=out, mode="w|") as tar:
        for name, size, content in contents(file):
            if name.startswith(UPLOADS):
                member = tarfile.TarInfo(name.removeprefix(UPLOADS))
                member.size, member.mode, member.mtime = size, 0o640, int(time.time())
                tar.addfile(member, content)


if __name__ == "__main__":
    main()
