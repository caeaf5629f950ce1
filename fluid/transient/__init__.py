"""The fluid over time: paths, recovery from bursts, collapsed states."""
