"""What an image costs the one Redis, which is what Darkroom cannot have more of."""
