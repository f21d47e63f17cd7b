"""The worker that speaks to others' servers: it fetches images by reference and calls webhooks."""
