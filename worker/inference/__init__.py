"""Classification of images: bytes in, classes out. Knows no Redis, no Celery and no other part of the worker."""
