"""Threshold tables out of and into the toolkit."""
