"""The designs that Darkroom is compared with, each written as its tutorial has it."""

PROCESSES = 2  # that classify: one per core
BATCH_IMAGES_MAX = 8
BATCH_WAIT_SECONDS_MAX = 0.01
BATCH_LATENCY_MS_MAX = 60_000  # of BentoML: slower requests would be refused, and here they shall wait
