"""Tests, benchmarks and the check of a GPU (`python -m tests.gpu`)."""
