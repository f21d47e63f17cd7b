"""Request bodies: one image, multipart, tar, zip or URLs, read as they arrive and packed into chunks."""
