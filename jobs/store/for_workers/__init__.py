"""The workers' side of the store, blocking: leases, heartbeats, images to fetch and webhooks to call."""
