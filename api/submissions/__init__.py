"""Turns the images of an upload into an accepted job, or into more chunks of an open job."""
