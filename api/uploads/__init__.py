"""Reads the images of a request body: a single image, multipart, tar, zip, or a list of URLs."""
