"""The Celery worker: model packages, preprocessing, inference. The only home of torch, with `training/`."""
