"""The fault suite: a real stack under load, faults of every kind, and a ledger of each image's expected outcome."""
