"""Fixtures of the command-line tests."""

from browser import browser
from command_line import call

__all__ = ["browser", "call"]
