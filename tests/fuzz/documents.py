"""Files that are wrong: broken as files, or as documents, whatever they are meant to be."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Rng = random.Random

HOSTILE = ("a\n$(touch y)", "\x1b]0;y\x07", "a'; touch y #", "$\\x{$", "x" * 201, "‮", " ")
"""Names that would run, write, hide or break something."""

NUMBERS = ("NaN", "Infinity", "-Infinity", "1e400", "9" * 5000)
"""Numbers that no field of ours holds, as they stand in a file."""


def _bomb() -> str:
    lines = ["a0: &a0 [" + ",".join(["lol"] * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 9)]
    return "\n".join([*lines, "name: w", "classes: *a8"])


BROKEN_JSON: dict[str, bytes] = {
    "empty": b"",
    "no mapping": b"[1, 2]",
    "a word": b"yes",
    "zeros": bytes(1000),
    "not utf-8": "é".encode("latin-1") * 50,
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep mappings": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "twice": b'{"name": "a", "name": "b"}',
    "digits": b'{"name": "w", "classes": ' + b"9" * 5000 + b"}",
    "surrogate": b'{"name": "\\ud800", "classes": []}',
    "many values": b"[" + b"1," * 2_100_000 + b"1]",
}
BROKEN_YAML: dict[str, bytes] = {
    "bomb": _bomb().encode(),
    "cycle": b"name: w\nclasses: &a [*a]\n",
    "tag": b"name: !!python/object/apply:os.system [touch y]\n",
    "int tag": b"name: !!int abc\n",
    "time tag": b"name: !!timestamp abc\n",
    "binary key": b"!!binary aGVsbG8=: 2\nname: w\n",
    "merge": b"<<: {name: w}\nclasses: []\n",
    "list as key": b"? [1, 2]\n: 3\n",
    "deep": b"[" * 20_000,
    "sexagesimal": b"name: w\nclasses: [{name: a, rate_per_s: 1:30, prefill_tokens: 1, "
    b"decode_tokens: 1}]\n",
    "hex": b"name: w\nclasses: [{name: a, rate_per_s: 0x_, prefill_tokens: 1, decode_tokens: 1}]\n",
    "tab": b"name:\n\t- 1\n",
    "two": b"name: w\n---\nname: x\n",
}


def leaves(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value stands, those that hold others too."""
    if path:
        yield path
    inner: Any = ()
    if isinstance(document, dict):
        inner = document.items()
    elif isinstance(document, list):
        inner = enumerate(document)
    for key, value in inner:
        yield from leaves(value, (*path, key))


def changed(document: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """A copy with another value in one place."""
    found = copy.deepcopy(document)
    holder = found
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = change(holder[path[-1]])
    return found


def wrong_documents(documents: Sequence[Any], rng: Rng) -> Iterator[tuple[str, bytes]]:
    """One of them as no reader accepts it, with what is wrong about it, without end."""
    while True:
        document = rng.choice(documents)
        path = rng.choice(list(leaves(document)))
        where = ".".join(map(str, path))
        kind = rng.choice(("shape", "number", "unknown", "cut", "bytes"))
        if kind == "shape":  # nothing of ours is a mapping of this field
            yield f"{where}: shape", _text(changed(document, path, lambda _: {"x": [1]}))
        elif kind == "number":
            text = _text(changed(document, path, lambda _: "@@")).decode()
            yield f"{where}: number", text.replace('"@@"', rng.choice(NUMBERS)).encode()
        elif kind == "unknown":
            yield "unknown field", _text(document | {f"field{rng.randrange(9)}": 1})
        elif kind == "cut":
            text = _text(document).decode()
            yield "cut", text[: rng.randrange(1, len(text) - 2)].encode()
        else:
            data = bytearray(_text(document))
            data[rng.randrange(len(data))] = rng.choice((0, 0xFF, 0x01))
            yield "a byte", bytes(data)


def extreme_documents(documents: Sequence[Any], rng: Rng) -> Iterator[tuple[str, bytes]]:
    """One of them with a number of any size or a hostile text in some places, without end."""
    while True:
        document = found = rng.choice(documents)
        told = []
        for path in rng.sample(list(leaves(document)), rng.randint(1, 2)):
            try:
                found = changed(found, path, lambda value: _extreme(value, rng))
            except (KeyError, TypeError, IndexError):
                continue
            told.append(".".join(map(str, path)))
        yield ", ".join(told), _text(found)


def _extreme(value: Any, rng: Rng) -> Any:
    if isinstance(value, bool) or value is None:
        return rng.choice((True, None, 1, "yes"))
    if isinstance(value, int):
        return int(rng.choice((-1, 0, 1, 2, 10 ** rng.uniform(0, 20))))
    if isinstance(value, float):
        return rng.choice(
            (0.0, -value, value * 10 ** rng.uniform(-20, 20), 10 ** rng.uniform(-20, 20))
        )
    if isinstance(value, str):
        return rng.choice((*HOSTILE, "", value.upper()))
    return rng.choice(([], {}, value + value if isinstance(value, list) else [value], None))


def mutated(data: bytes, rng: Rng) -> bytes:
    """Bytes of a file with a few of them changed, moved, doubled or lost."""
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 8, 64))
        piece = rng.choice(
            (b"", b"\0", b'"', b"[" * 90, b"-", b"NaN", b"1e999", b"9" * 30, b",", b"\n", b"\xff",
             data[at : at + length] * 2, rng.randbytes(length))
        )  # fmt: skip
        data = data[:at] + piece + data[at + length :]
    return data


def _text(document: Any) -> bytes:
    return json.dumps(document).encode()
