"""Reader of BurstGPT traces (HPMLL/BurstGPT, CC-BY-4.0; arXiv 2401.17644), all versions.

Timestamp is in seconds since the trace's first midnight; the first arrival becomes time 0. Rows
whose response has 0 tokens are failed requests.
"""

from __future__ import annotations

from fluid.traces.csv_lines import csv_format, seconds_clock

BURSTGPT = csv_format(
    "burstgpt",
    "BurstGPT (CSV)",
    seconds_clock("Timestamp"),
    prompt="Request tokens",
    output="Response tokens",
)
