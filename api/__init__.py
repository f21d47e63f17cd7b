"""The HTTP service: routes, limits, errors. It knows no Celery and no torch."""
