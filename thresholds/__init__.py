"""Thresholds that hold: solvers, and the tables they give.

Nothing is imported here: a serving engine that reads a table (`thresholds.export.vllm_scheduler`)
needs none of the solvers' libraries.
"""
