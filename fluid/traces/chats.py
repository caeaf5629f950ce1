"""Chats: text that a tokenizer counts, as a JSON list or an object per line.

A leading system turn belongs to the prompt. Of the turns behind it, as in vLLM's benchmark, the
first is the prompt and the second the output, whoever they are from, counted by a tokenizer with
its special tokens. Unlike there, long and short ones are kept. A chat of fewer than two such turns,
or with an empty one, is a failed request.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fluid.errors import FluidwaitError, InputError
from fluid.files import require_readable
from fluid.parsing import guarded
from fluid.traces.documents import json_stream
from fluid.traces.trace import NO_TIMES, Chunk, ReadOptions, Trace, failed_request, open_bytes
from fluid.traces.trace_format import TraceFormat

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CONVERSATIONS_AT_ONCE = 256
_SYSTEM = ("system", "developer")


@dataclass(frozen=True)
class ChatLayout:
    """Where a format of chats keeps what.

    Attributes:
        turns: Field of a chat with the list of its turns.
        role: Field of a turn that says whom it is from.
        text: Field of a turn with what was said.
    """

    turns: str
    role: str
    text: str


def chat_format(
    name: str, summary: str, layout: ChatLayout, caveats: tuple[str, ...] = ()
) -> TraceFormat:
    """A format of chats in a layout."""

    def detect(head: str) -> bool:
        return head.lstrip()[:1] in ("[", "{") and f'"{layout.turns}"' in head

    def open_chats(path: Path, options: ReadOptions) -> Trace:
        if options.tokenizer is None:
            allowed = "a tokenizer.json, since this trace holds text and no token counts"
            raise InputError("tokenizer", "nothing", allowed, str(path))
        tokenizer = _tokenizer(Path(options.tokenizer))
        chunks = _chunks(path, layout, tokenizer, options)
        return Trace(chunks, timed=False, said=(NO_TIMES, *caveats))

    return TraceFormat(name, summary, detect, open_chats)


def _chunks(
    path: Path, layout: ChatLayout, tokenizer: Tokenizer, options: ReadOptions
) -> Iterator[Chunk]:
    file = str(path)
    turns = (
        _prompt_and_output(chat, layout, number, file)
        for number, chat in enumerate(_chats(path), 1)
    )
    none = True
    while some := list(itertools.islice(turns, _CONVERSATIONS_AT_ONCE)):
        none = False
        yield _counted(some, tokenizer, options, file)
    if none:
        raise InputError("", "no conversations", "at least one conversation", file)


def _chats(path: Path) -> Iterator[Any]:
    """Chats of a list, or of a document each."""
    import ijson

    with open_bytes(path) as stream:
        listed = stream.read(64).lstrip()[:1] == b"["
    allowed = "one JSON document" if listed else "a list of chats, or one JSON object per line"
    with json_stream(path, allowed) as stream:
        root = "item" if listed else ""
        yield from ijson.items(stream, root, use_float=True, multiple_values=not listed)


def _prompt_and_output(
    chat: Any, layout: ChatLayout, number: int, file: str
) -> tuple[int, str, str]:
    """Number of a chat, its prompt and its output, "" for those that it does not have."""
    place = f"conversation {number}"
    turns = chat.get(layout.turns) if isinstance(chat, dict) else None
    if not isinstance(turns, list):
        raise InputError(place, chat, f'an object with a list "{layout.turns}"', file)
    system = list(itertools.takewhile(lambda turn: _is_system(turn, layout), turns))
    texts = [
        _text(turn, layout, f"{place}: {layout.turns}[{index}].{layout.text}", file)
        for index, turn in enumerate(turns[: len(system) + 2])
    ]
    asked, answered = [*texts[len(system) :], "", ""][:2]
    prompt = "\n".join([*texts[: len(system)], asked]) if asked else ""
    return number, prompt, answered


def _is_system(turn: Any, layout: ChatLayout) -> bool:
    return isinstance(turn, dict) and turn.get(layout.role) in _SYSTEM


def _text(turn: Any, layout: ChatLayout, place: str, file: str) -> str:
    """What a turn says, in one text or in a list of parts of text."""
    said = turn.get(layout.text) if isinstance(turn, dict) else None
    if said is None and isinstance(turn, dict) and layout.text in turn:
        return ""  # as in a turn that calls a tool
    if isinstance(said, list) and all(_is_text(part) for part in said):
        return "\n".join(part["text"] for part in said)
    if not isinstance(said, str):
        raise InputError(place, said, "a text", file)
    return said


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _counted(
    turns: list[tuple[int, str, str]], tokenizer: Tokenizer, options: ReadOptions, file: str
) -> Chunk:
    kept = [turn for turn in turns if turn[1] and turn[2]]
    if len(kept) < len(turns) and not options.drop_failed:
        number, prompt, _ = next(turn for turn in turns if not (turn[1] and turn[2]))
        said = "no answer" if prompt else "no prompt"
        raise failed_request(f"conversation {number}", said, file)
    prompts, outputs = (
        [len(one.ids) for one in tokenizer.encode_batch([turn[place] for turn in kept])]
        for place in (1, 2)
    )
    return Chunk(
        None,
        np.array(prompts, dtype=np.int64),
        np.array(outputs, dtype=np.int64),
        dropped=len(turns) - len(kept),
    )


def _tokenizer(path: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        hint = "counting tokens needs tokenizers: pip install 'fluidwait[traces]'"
        raise FluidwaitError(hint) from None
    require_readable(path)
    with guarded(str(path), "a tokenizer.json"):
        tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
