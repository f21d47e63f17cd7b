"""Bulk jobs, measured on a stack of their own."""
