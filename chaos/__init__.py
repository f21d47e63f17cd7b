"""The fault suite: a real stack under load, faults of every kind, and a ledger of what every image should become."""
