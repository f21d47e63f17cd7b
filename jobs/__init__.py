"""The contract that the API and the workers share: records, states, the Redis store, settings and errors."""

VERSION = "0.1.0"  # of API and workers, as in pyproject.toml
