"""Text from outside into plain data: one guarded place for YAML and JSON, and its bounds.

Whatever a parser raises becomes an `InputError`. YAML is that of version 1.2 (0512 is 512, 1:30 and
2020-01-01 are text), read from libyaml's events, so that no tag builds an object and neither depth
nor aliases cost more than they say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

from fluid.errors import InputError

MOST_BYTES = 1 << 26
"""Of a document: a table of 100,000 classes, the largest that is meant to be read, takes half."""

MOST_DEPTH = 64
"""Of lists and mappings inside each other; no file of ours needs ten."""

MOST_VALUES = 2_000_000
"""Of a document, 80 bytes or more each; those behind a YAML alias count whenever it is named, and
long texts for more than one."""

MOST_DIGITS = 40
"""Of a whole number: no count needs twenty."""

MOST_KEY_CHARACTERS = 200
_CHARACTERS = 16
"""Of a text count as one value more."""

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + "." + inf: float(sign + "inf") for sign in ("", "+", "-") for inf in ("inf", "Inf")},
}
_TAG = "tag:yaml.org,2002:"
_KINDS: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "null": type(None)}


@contextmanager
def guarded(file: str, allowed: str) -> Iterator[None]:
    """The one place where exceptions of a parser, which may be any, become an `InputError`."""
    try:
        yield
    except (InputError, OSError, GeneratorExit):
        raise
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(where, error.problem or "unreadable", allowed, file) from None
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno}", error.msg, allowed, file) from None
    except (RecursionError, MemoryError):
        raise InputError("", "too large or too deep", allowed, file) from None
    except Exception as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise InputError("", problem, allowed, file) from None


def parse_json(text: str, file: str) -> Any:
    """Plain data of one JSON document.

    Raises:
        InputError: It is none, has a key twice, or is beyond a bound of this file.
    """
    # No value without a separator before it: the parser is not asked where there are too many.
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        raise _too_many(file)
    with guarded(file, "valid JSON"):
        found = json.loads(
            text,
            object_pairs_hook=lambda pairs: _without_duplicates(pairs, file),
            parse_int=lambda digits: _whole(digits, "", file),
        )
    _require_depth(found, file)
    return found


def parse_yaml(text: str, file: str) -> Any:
    """Plain data of one YAML document; None where it is empty.

    Raises:
        InputError: As `parse_json`; a tag, a merge key, or a key that is no text.
    """
    with guarded(file, "valid YAML"):
        loader = yaml.CLoader if yaml.__with_libyaml__ else yaml.Loader
        return _Built(file).document(yaml.parse(text, Loader=loader))


@dataclass
class _Open:
    """A list or mapping of which more is to come."""

    value: Any
    anchor: str | None
    first: int
    key: str | None = None


@dataclass
class _Built:
    """Plain data from the events of a YAML parser."""

    file: str
    line: int = 0
    values: int = 0
    open: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    root: Any = None

    def document(self, events: Iterator[Any]) -> Any:
        """The value of the only document."""
        documents = 0
        for event in events:
            self.line = event.start_mark.line + 1
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error("a second document", "one document")
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event.anchor)
            elif isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._begin(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                done = self.open.pop()
                self._name(done.anchor, done.value, done.first)
        return self.root

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        is_list = isinstance(event, yaml.SequenceStartEvent)
        if event.tag not in (None, "!", _TAG + ("seq" if is_list else "map")):
            raise self._error(event.tag, "plain YAML without tags")
        value: Any = [] if is_list else {}
        first = self.values
        self._add(value, 1)
        self.open.append(_Open(value, event.anchor, first))
        if len(self.open) > MOST_DEPTH:
            raise self._error(f"more than {MOST_DEPTH} levels", f"at most {MOST_DEPTH} levels")

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        if self._wants_key:
            self._key(event)
            return
        first = self.values
        value = self._value(event)
        self._add(value, 1 + len(event.value) // _CHARACTERS)
        self._name(event.anchor, value, first)

    def _alias(self, anchor: str | None) -> None:
        if anchor is None or anchor not in self.anchors:
            raise self._error(f"*{anchor}", "the name of a finished value above")
        self._add(*self.anchors[anchor])

    def _name(self, anchor: str | None, value: Any, first: int) -> None:
        if anchor is not None:
            self.anchors[anchor] = value, self.values - first

    @property
    def _wants_key(self) -> bool:
        return (
            bool(self.open) and isinstance(self.open[-1].value, dict) and self.open[-1].key is None
        )

    def _key(self, event: yaml.ScalarEvent) -> None:
        key = event.value
        if key == "<<" and event.implicit[0]:
            raise self._error("<<", "fields written out: YAML 1.2 has no merge keys")
        if event.tag not in (None, "!", _TAG + "str"):
            raise self._error(event.tag, "plain text for a key")
        _require_key(key, f"line {self.line}", self.file)
        if key in self.open[-1].value:
            raise InputError(key, "given twice", "each key once", self.file)
        self.open[-1].key = key
        self._name(event.anchor, key, self.values - 1)

    def _add(self, value: Any, size: int) -> None:
        """Put a value of so many values inside where it belongs."""
        self.values += size
        if self.values > MOST_VALUES:
            raise _too_many(self.file)
        if not self.open:
            self.root = value
        elif isinstance(self.open[-1].value, list):
            self.open[-1].value.append(value)
        elif self.open[-1].key is None:
            raise self._error("a list, mapping or alias as key", "plain text for a key")
        else:
            self.open[-1].value[self.open[-1].key] = value
            self.open[-1].key = None

    def _value(self, event: yaml.ScalarEvent) -> Any:
        """A scalar by the core schema of YAML 1.2, octal and hexadecimal numbers left out."""
        text = event.value
        if event.tag is None and not event.implicit[0]:
            return text  # quoted
        if event.tag in ("!", _TAG + "str"):
            return text
        value: Any = text
        if text in _WORDS:
            value = _WORDS[text]
        elif _INT.fullmatch(text):
            value = _whole(text, f"line {self.line}", self.file)
        elif _FLOAT.fullmatch(text):
            value = float(text)
        if event.tag is None:
            return value
        kind = _KINDS.get(event.tag.removeprefix(_TAG))
        if kind is float and type(value) is int:
            return float(value)
        if kind is None or type(value) is not kind:
            shown = event.tag.replace(_TAG, "!!")
            raise self._error(f"{shown} {text[:80]}", "plain YAML without tags")
        return value

    def _error(self, value: str, allowed: str) -> InputError:
        return InputError(f"line {self.line}", value, allowed, self.file)


def _whole(digits: str, field: str, file: str) -> int:
    if len(digits) > MOST_DIGITS:
        value = f"a number of {len(digits)} digits"
        raise InputError(field, value, f"at most {MOST_DIGITS} digits", file)
    return int(digits)


def _without_duplicates(pairs: list[tuple[str, Any]], file: str) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        _require_key(key, "", file)
        if key in document:
            raise InputError(key, "given twice", "each key once", file)
        document[key] = value
    return document


def _require_key(key: str, field: str, file: str) -> None:
    if len(key) > MOST_KEY_CHARACTERS:
        allowed = f"keys of at most {MOST_KEY_CHARACTERS} characters"
        raise InputError(field, key, allowed, file)


def _too_many(file: str) -> InputError:
    return InputError("", f"more than {MOST_VALUES:,} values", f"at most {MOST_VALUES:,}", file)


def _require_depth(document: Any, file: str) -> None:
    level = [document]
    for _ in range(MOST_DEPTH + 1):
        level = [
            value
            for one in level
            if isinstance(one, list | dict)
            for value in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise InputError("", f"more than {MOST_DEPTH} levels", f"at most {MOST_DEPTH} levels", file)
