"""Questions put to the simulator: compare, replay, boundaries, recovery, sweeps."""
