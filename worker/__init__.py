"""Worker processes under Celery: one kind classifies images, the other fetches images and calls webhooks."""
