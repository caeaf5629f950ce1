"""Servers made from a model's config: measured tables or data sheet, KV capacity, engine limits."""
