"""Latency laws for any iteration time (THEORY 9)."""
