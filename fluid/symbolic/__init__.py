"""The formulas of THEORY 2-4, derived with sympy."""
