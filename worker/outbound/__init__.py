"""The worker that connects to servers of others: fetches images by reference, and calls webhooks."""
