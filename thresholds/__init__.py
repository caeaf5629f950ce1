"""Thresholds that hold: problems, solvers, and the tables they give."""

from thresholds.problem import Problem
from thresholds.solve import solve
from thresholds.table import ThresholdTable

__all__ = ["Problem", "ThresholdTable", "solve"]
