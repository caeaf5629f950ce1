"""Tests, and the helpers that they share in `tests.support`."""
