"""From the bytes of a picture to the input of a network."""
