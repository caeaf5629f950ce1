"""Reader of ShareGPT-like chats: a JSON list of {"conversations": [{"from": …, "value": …}, …]}.

As in vLLM's benchmark, the first turn of a conversation is the prompt and the second the output,
whoever they are from, counted by a tokenizer with its special tokens. Unlike there, long and short
ones are kept. A conversation of fewer than two turns, or an empty turn, is a failed request.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fluid.errors import FluidwaitError, InputError
from fluid.traces.documents import json_stream
from fluid.traces.trace import Chunk, ReadOptions, Trace, failed_request
from fluid.traces.trace_format import TraceFormat

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CONVERSATIONS_AT_ONCE = 256


def _detect(head: str) -> bool:
    return head.lstrip().startswith("[") and '"conversations"' in head


def _open(path: Path, options: ReadOptions) -> Trace:
    if options.tokenizer is None:
        allowed = "a tokenizer.json, since this trace holds text and no token counts"
        raise InputError("tokenizer", "nothing", allowed, str(path))
    caveats = ("the file has no times: arrivals are taken as Poisson",)
    tokenizer = _tokenizer(options.tokenizer)
    return Trace(_chunks(path, tokenizer, options), timed=False, caveats=caveats)


SHAREGPT = TraceFormat("sharegpt", "ShareGPT-like chats (JSON)", _detect, _open)


def _chunks(path: Path, tokenizer: Tokenizer, options: ReadOptions) -> Iterator[Chunk]:
    import ijson

    file = str(path)
    with json_stream(path) as stream:
        conversations = enumerate(ijson.items(stream, "item", use_float=True), 1)
        turns = (_turns(one, number, file) for number, one in conversations)
        none = True
        while some := list(itertools.islice(turns, _CONVERSATIONS_AT_ONCE)):
            none = False
            yield _counted(some, tokenizer, options, file)
    if none:
        raise InputError("", "no conversations", "at least one conversation", file)


def _turns(conversation: Any, number: int, file: str) -> tuple[int, str, str]:
    """Number of a conversation and its first two turns, "" for those that it does not have."""
    place = f"conversation {number}"
    turns = conversation.get("conversations") if isinstance(conversation, dict) else None
    if not isinstance(turns, list):
        raise InputError(place, conversation, 'an object with a list "conversations"', file)
    texts = [turn.get("value") if isinstance(turn, dict) else None for turn in turns[:2]]
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            field = f"{place}: conversations[{index}].value"
            raise InputError(field, text, "a text", file)
    prompt, output = [str(text) for text in [*texts, "", ""][:2]]
    return number, prompt, output


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
    if not path.is_file():
        raise InputError("", "no such file", "a tokenizer.json", str(path))
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare exceptions
        raise InputError("", str(error), "a tokenizer.json", str(path)) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
