"""Reader of chats as APIs take them: {"messages": [{"role": …, "content": …}, …]} each."""

from __future__ import annotations

from fluid.traces.chats import ChatLayout, chat_format

MESSAGES = chat_format(
    "messages", "chats of messages (JSON lines)", ChatLayout("messages", "role", "content")
)
