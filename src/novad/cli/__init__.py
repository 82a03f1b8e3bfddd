"""The ``novad`` command."""

from novad.cli.app import main

__all__ = ["main"]
