"""Threshold solvers: a room for each rule, listed in `registry`."""
