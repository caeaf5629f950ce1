"""Reader of Mooncake traces (kvcache-ai/Mooncake), a JSON object per line.

Fields: `timestamp` (ms), `input_length`, `output_length`; `hash_ids`, of 512 prompt tokens each,
tell what share of the prompts is reusable. The first arrival becomes time 0. Qwen-Bailian traces
have the same fields with other units, see `fluid.traces.bailian`.
"""

from __future__ import annotations

from fluid.traces.bailian import CHAT_FIELDS
from fluid.traces.json_lines import json_lines_format
from fluid.traces.lines import Clock

MOONCAKE = json_lines_format(
    "mooncake",
    "Mooncake trace (JSON lines)",
    Clock(field="timestamp", units_per_s=1000),
    unit="milliseconds",
    block_tokens=512,
    detect=lambda fields: not fields & CHAT_FIELDS,
)
