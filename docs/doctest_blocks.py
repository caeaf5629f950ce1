"""Examples of docstrings as blocks of code on the reference pages.

Between sections of a docstring Markdown would take ``>>>`` for a quotation and ``[1, 2]`` for a
link.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"(?:^ *>>> .*\n?)(?:^ *\S.*\n?)*", re.MULTILINE)


def fenced(docstring: str) -> str:
    """The docstring with a fence around each example, from ``>>>`` to the next empty line."""
    return _EXAMPLE.sub(lambda one: f"```pycon\n{one[0].rstrip()}\n```\n", docstring)


class DoctestBlocks(Extension):
    """Fences the examples of every object that is documented."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called by griffe once an object is loaded."""
        if obj.docstring and ">>>" in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)
