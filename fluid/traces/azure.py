"""Reader of the Azure LLM inference traces of 2023 to 2025 (Azure/AzurePublicDataset, CC-BY-4.0).

Columns: TIMESTAMP (ISO date and time, in 2024 with a zone), ContextTokens, GeneratedTokens; in the
multimodal trace of 2025 NumImages too, whose tokens are among the ContextTokens. Timestamps without
a zone are taken as UTC, all are read to the microsecond, and the first arrival becomes time 0.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fluid.traces.csv_lines import Beside, CsvClock, csv_format
from fluid.traces.lines import Columns

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


class _Images:
    """Counts the requests with images; see `fluid.traces.lines.Watch`."""

    def __init__(self) -> None:
        self._requests = self._with_images = 0

    def see(self, columns: Columns) -> None:
        self._requests += len(columns.prompts)
        self._with_images += int((columns.beside.values > 0).sum())

    def findings(self) -> tuple[str, ...]:
        if not self._with_images:
            return ()
        return (
            f"{self._with_images:,} of {self._requests:,} requests have images: their tokens are"
            " among the prompt tokens, but the time to encode an image is not in the workload",
        )


AZURE = csv_format(
    "azure",
    "Azure LLM inference trace of 2023, 2024 or 2025 (CSV)",
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
    beside=Beside("NumImages", _Images),
)
