"""Service levels in simulation: whether they hold, up to which rate, and on how many servers."""
