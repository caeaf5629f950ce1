"""Reader of Vidur's files of request lengths (CSV): a tape without its times.

Columns: `num_prefill_tokens`, `num_decode_tokens`; the total and the ratio follow from them.
"""

from __future__ import annotations

from fluid.traces.csv_lines import UNTIMED, csv_format
from fluid.traces.tape_csv import COLUMNS

VIDUR_LENGTHS = csv_format(
    "vidur-lengths",
    "Vidur's request lengths (CSV)",
    UNTIMED,
    prompt=COLUMNS[1],
    output=COLUMNS[2],
    without=COLUMNS[0],
)
