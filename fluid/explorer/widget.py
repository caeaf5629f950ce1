"""The explorer as a widget of a notebook: the browser asks, the kernel answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from fluid.explorer.state import Explorer

_ROOM = Path(__file__).parent


class RegionExplorer(anywidget.AnyWidget):  # type: ignore[misc]
    """Sliders, region and latencies.

    Attributes:
        explorer: Who answers.
        known: What the browser is told at first.
    """

    _esm = _ROOM / "explorer.js"
    _css = _ROOM / "explorer.css"
    known = traitlets.Dict().tag(sync=True)

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        super().__init__(known=explorer.known)
        self.on_msg(self._asked)

    def _asked(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """Answer a question; its number goes back with the answer."""
        try:
            answer = self.explorer.answer(message["question"])
        except ValueError as error:
            answer = {"refusal": str(error)}
        self.send({"number": message["number"], "answer": answer})
