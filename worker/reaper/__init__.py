"""The housekeeping of a worker's main process: one class for each duty, run in turn by one thread."""
