"""What Darkroom is compared with: the two designs that people build first, each written as its tutorials have it."""
