"""Settings of an engine, chosen together on simulations."""
