"""Reader of ShareGPT-like chats: {"conversations": [{"from": …, "value": …}, …]} each."""

from __future__ import annotations

from fluid.traces.chats import ChatLayout, chat_format

SHAREGPT = chat_format(
    "sharegpt", "ShareGPT-like chats (JSON)", ChatLayout("conversations", "from", "value")
)
