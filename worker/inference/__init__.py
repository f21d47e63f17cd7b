"""Pictures to classes: torch, numpy and Pillow. It knows no Redis, no Celery and nothing else of the worker."""
