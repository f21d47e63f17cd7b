"""The networks that are built in, and how a device computes a network."""
