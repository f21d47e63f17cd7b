"""`python -m worker.inference`: see `worker/inference/command.py`."""

from worker.inference.command import main

if __name__ == "__main__":
    main()
