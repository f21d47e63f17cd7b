"""A reference model of the store in plain Python, and a random walk that compares the store with it."""
