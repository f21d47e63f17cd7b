"""Coverage-guided fuzzing of what Darkroom itself parses: `make fuzz`."""
