"""A running engine watched: its load and speed learned from its metrics, its table kept right."""
