"""Fixtures of the command-line tests."""

from command_line import call

__all__ = ["call"]
