"""How services log: the format of lines, and few lines of a long outage."""
