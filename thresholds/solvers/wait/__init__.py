"""Literal WAIT (THEORY 3): whole thresholds by objective, limits on means, bounds, prices."""
