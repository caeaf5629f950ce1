"""Reader of the Azure LLM inference traces of 2023 and 2024 (Azure/AzurePublicDataset, CC-BY-4.0).

Columns: TIMESTAMP (ISO date and time, in 2024 with a zone), ContextTokens, GeneratedTokens.
Timestamps without a zone are taken as UTC, all are read to the microsecond, and the first arrival
becomes time 0.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fluid.traces.csv_lines import CsvClock, csv_format

if TYPE_CHECKING:
    import pyarrow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _quick_microseconds(texts: pyarrow.ChunkedArray) -> NDArray[np.int64]:
    import pyarrow

    try:
        stamps = texts.cast(pyarrow.timestamp("ns"))
    except pyarrow.ArrowInvalid:
        stamps = texts.cast(pyarrow.timestamp("ns", "UTC"))
    return np.asarray(stamps.cast(pyarrow.int64())) // 1000


def _careful_microseconds(text: str) -> float:
    stamp = datetime.fromisoformat(text)
    zoned = stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)
    return (zoned - _EPOCH) // timedelta(microseconds=1)


AZURE = csv_format(
    "azure",
    "Azure LLM inference trace 2023 or 2024 (CSV)",
    CsvClock(
        field="TIMESTAMP",
        units_per_s=1e6,
        earliest=-np.inf,
        allowed="an ISO date and time such as 2023-11-16 18:15:46.6805900",
        quick=_quick_microseconds,
        careful=_careful_microseconds,
    ),
    prompt="ContextTokens",
    output="GeneratedTokens",
)
