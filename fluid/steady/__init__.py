"""The balanced state: stability, equilibrium, region, capacity and fluctuations (THEORY 2)."""
