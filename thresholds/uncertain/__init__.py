"""Thresholds for rates that are known only up to a box, a budget, or what a recording tells."""
