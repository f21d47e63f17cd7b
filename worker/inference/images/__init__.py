"""From the bytes of an uploaded image to the input of a network."""
