"""The faults: each breaks something, mends it, and returns how many seconds recovery took."""
