"""Attacks on a real stack, and what another owner notices of each."""
