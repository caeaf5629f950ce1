"""Fixtures of the command-line tests."""

from tests.support.command_line import call

__all__ = ["call"]
