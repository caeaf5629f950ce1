"""Thresholds that hold: problems, solvers, and the tables they give.

The entry point is `thresholds.solve.solve`. It is not imported here: a serving engine that reads a
table (`thresholds.export.vllm_scheduler`) needs none of the solvers' libraries.
"""

from thresholds.problem import Problem
from thresholds.table import ThresholdTable

__all__ = ["Problem", "ThresholdTable"]
