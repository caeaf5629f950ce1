"""Fluid model of LLM-inference serving: workloads, servers, equilibria and stability."""
