"""Reader of BurstGPT traces (HPMLL/BurstGPT, CC-BY-4.0; arXiv 2401.17644), all versions.

Timestamp is in seconds since the trace's first midnight; the first arrival becomes time 0. Rows
whose response has 0 tokens are failed requests.
"""

from __future__ import annotations

from fluid.traces.csv_lines import SECONDS, csv_format

BURSTGPT = csv_format(
    "burstgpt",
    "BurstGPT (CSV)",
    ("Timestamp", "Request tokens", "Response tokens"),
    SECONDS,
)
