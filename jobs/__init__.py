"""The contract that the API and the workers share: records, states, the Redis store, settings and errors."""
