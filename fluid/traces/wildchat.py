"""Reader of WildChat (arXiv 2405.01470): {"conversation": [{"role": …, "content": …}, …]} each."""

from __future__ import annotations

from fluid.traces.chats import ChatLayout, chat_format

WILDCHAT = chat_format(
    "wildchat",
    "WildChat (JSON lines)",
    ChatLayout("conversation", "role", "content"),
    caveats=("its timestamps are those of whole conversations and are not read",),
)
