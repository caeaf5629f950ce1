"""Reader of the Azure LLM inference traces (Azure/AzurePublicDataset, CC-BY-4.0).

Columns: TIMESTAMP (ISO date and time), ContextTokens, GeneratedTokens; one request per row.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fluid.errors import InputError
from fluid.traces.tape import Tape, csv_rows, whole_tokens

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def read_azure(path: str | Path) -> Tape:
    """Read a trace; the first arrival becomes time 0.

    Timestamps without a zone are taken as UTC and read to the microsecond. A row with zero
    context or generated tokens is refused, not dropped: it would silently change the rate.

    Raises:
        InputError: Naming file, line, value and what is allowed, also for unsorted timestamps.
    """
    file = str(path)
    stamps: list[datetime] = []
    prefill: list[int] = []
    decode: list[int] = []
    for line, (text, context, generated) in csv_rows(path, COLUMNS):
        stamp = _timestamp(text, line, file)
        if stamps and stamp < stamps[-1]:
            allowed = "timestamps in order, not before that of the previous row"
            raise InputError(f"line {line}: {COLUMNS[0]}", text, allowed, file)
        stamps.append(stamp)
        prefill.append(whole_tokens(context, line, COLUMNS[1], file))
        decode.append(whole_tokens(generated, line, COLUMNS[2], file))
    arrived_at_s = [(stamp - stamps[0]).total_seconds() for stamp in stamps]
    return Tape(np.array(arrived_at_s), np.array(prefill), np.array(decode))


def _timestamp(text: str, line: int, file: str) -> datetime:
    try:
        stamp = datetime.fromisoformat(text.strip())
    except ValueError:
        allowed = "an ISO date and time such as 2023-11-16 18:15:46.6805900"
        raise InputError(f"line {line}: {COLUMNS[0]}", text, allowed, file) from None
    return stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)
