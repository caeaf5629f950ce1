"""Prefix caching: hits and the equilibrium that they change (THEORY 10)."""
