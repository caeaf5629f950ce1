"""Reader of the Qwen-Bailian usage traces (alibaba-edu/qwen-bailian-usagetraces-anon).

A JSON object per line. Fields: `timestamp` in seconds, `input_length`, `output_length`, and those
of the chat a request belongs to, by which the traces are told from Mooncake's; `hash_ids`, of 16
prompt tokens each, tell what share of the prompts is reusable. The first arrival becomes time 0.
"""

from __future__ import annotations

from fluid.traces.json_lines import json_lines_format
from fluid.traces.lines import Clock

CHAT_FIELDS = frozenset({"chat_id", "parent_chat_id", "turn"})

BAILIAN = json_lines_format(
    "bailian",
    "Qwen-Bailian trace (JSON lines)",
    Clock(field="timestamp"),
    unit="seconds",
    block_tokens=16,
    detect=lambda fields: bool(fields & CHAT_FIELDS),
)
