"""The command `darkroom`."""

from darkroom.cli.commands import main

__all__ = ["main"]
