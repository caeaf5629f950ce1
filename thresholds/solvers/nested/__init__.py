"""Nested WAIT and caps per segment (THEORY 4, 5.2, 5.3), and the parts that they are made of."""

from thresholds.solvers.nested.requirement import boundary_exponent, log_term, nested_memory
from thresholds.solvers.nested.segments import distinct_lengths

__all__ = ["boundary_exponent", "distinct_lengths", "log_term", "nested_memory"]
