"""A classifying worker's child process: claims leases, classifies their images, writes the results."""
