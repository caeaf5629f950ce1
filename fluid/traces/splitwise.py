"""Reader of the traces that the simulator SplitwiseSim writes and reads (CSV; arXiv 2311.18677).

Columns: `arrival_timestamp` (s), `prompt_size`, `token_size`, beside others that are not read. The
first arrival becomes time 0.
"""

from __future__ import annotations

from fluid.traces.csv_lines import csv_format, seconds_clock

SPLITWISE = csv_format(
    "splitwise",
    "SplitwiseSim trace (CSV)",
    seconds_clock("arrival_timestamp"),
    prompt="prompt_size",
    output="token_size",
)
