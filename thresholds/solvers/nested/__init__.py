"""Nested WAIT and caps per segment (THEORY 4, 5.2, 5.3)."""
