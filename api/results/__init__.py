"""Delivers results: waiting for a job to end, streams of events, results as lines."""
