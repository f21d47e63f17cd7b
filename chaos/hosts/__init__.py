"""Two network namespaces as two hosts: Redis, API and outbound on the first one, workers on the second, over TLS."""
