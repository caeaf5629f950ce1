"""Standard output and error as they are found: closed, full, or of few letters."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from typing import IO, Any

_ASCII = {
    "–": "-", "—": "-", "−": "-", "·": "*", "×": "x", "±": "+-", "≤": "<=", "≥": ">=", "≠": "!=",
    "→": "->", "↑": "^", "∞": "inf", "√": "sqrt", "Σ": "sum", "Δ": "Delta", "µ": "u", "°": "deg",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "η": "eta", "λ": "lambda", "μ": "mu",
    "ρ": "rho", "σ": "sigma", "τ": "tau", "χ": "chi", "Λ": "Lambda", "’": "'", "‘": "'", "“": '"',
    "”": '"', "÷": "/", "─": "-", "∈": "in", "⋯": "...", "\u2009": " ", "\u202f": " ",
}  # fmt: skip
"""What is printed instead where a terminal has no such letter."""


def ready() -> bool:
    """Give the streams a way to say everything; whether there is a standard output at all."""
    is_open = sys.stdout is not None
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # The lowest free number is that of the closed stream: no file of ours may get it.
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    codecs.register_error("fluidwait", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="fluidwait")
    return is_open


def has_unicode(stream: IO[str]) -> bool:
    """Whether every letter can be printed."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"


def flushed() -> bool:
    """Whether all that was printed has arrived; if not, nothing more is tried at the end."""
    arrived = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            arrived = arrived and stream is not sys.stdout
            _give_up(stream)
    return arrived


def _give_up(stream: Any) -> None:
    """Let what is left go nowhere: the interpreter flushes once more when it ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """Letters that a terminal lacks, spelled with those that it has."""
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return spelled(missing), error.end


def spelled(text: str) -> str:
    """With letters of ASCII only.

    >>> spelled("ρ ≤ 1")
    'rho <= 1'
    """
    return text if text.isascii() else "".join(map(_spelled, text))


def _spelled(letter: str) -> str:
    if letter.isascii():
        return letter
    if letter in _ASCII:
        return _ASCII[letter]
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return plain or letter.encode("ascii", "backslashreplace").decode()
