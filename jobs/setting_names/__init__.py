"""Names of settings: those that exist and resemble a misspelt one, and those that earlier releases had."""
