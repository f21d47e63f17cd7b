"""Break a stack under load for a while, and check every image that it accepted: `make chaos`.

    .venv/bin/python -m chaos [--seconds 1200] [--rate 350] [--seed 1] [--only "Redis killed" --times 20] [--s3]
    .venv/bin/python -m chaos --report table.md      # also writes the table of docs/RELIABILITY.md

Exits with 1 if any image was lost, doubled, changed or wrongly failed, or if the store keeps anything afterwards.
"""

import argparse
import asyncio
import gc
import shlex
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from chaos.faults.table import FAULTS
from chaos.fleet import Fleet
from chaos.run import END_SECONDS_MAX, SETTINGS, Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--rate", type=float, default=350, help="images a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--brief", action="store_true", help="leave out the faults of a minute, and those that make the store forget"
    )
    parser.add_argument("--only", choices=FAULTS, help="inject only this fault")
    parser.add_argument("--times", type=int, default=1_000_000, help="with --only: how often at most")
    parser.add_argument("--s3", action="store_true", help="large uploads wait in S3 (moto), not in a folder")
    parser.add_argument("--small", action="store_true", help="two workers of one child, which start sooner")
    parser.add_argument(
        "--end-seconds", type=float, default=END_SECONDS_MAX, help="how long a job's end and a recovery are waited for"
    )
    parser.add_argument("--until-wrong", action="store_true", help="end as soon as something is wrong")
    parser.add_argument("--report", type=Path, help="write the account to this file, in Markdown")
    parser.add_argument("--logs", type=Path, help="keep the logs of all processes in this folder")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # after it has ended the processes of the stack
    gc.set_threshold(700, 10, 1_000_000_000)  # a look through all objects of the ledger stops the clients for seconds
    with TemporaryDirectory(prefix="chaos-") as temporary:
        logs = options.logs or Path(temporary)
        logs.mkdir(parents=True, exist_ok=True)
        with Fleet(Path(temporary), logs, s3=options.s3, small=options.small, **SETTINGS) as fleet:
            run = Run(options, fleet)
            passed = asyncio.run(run.run())
            print(run.report.text())
            if options.report is not None:
                options.report.write_text(run.report.markdown(shlex.join(["python", "-m", "chaos", *sys.argv[1:]])))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
