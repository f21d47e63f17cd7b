"""A job's results: NDJSON and CSV, server-sent events, and waiting for the end of a job."""
