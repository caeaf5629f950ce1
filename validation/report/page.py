"""Pages as HTML that stands alone: no script, no style and no picture from elsewhere."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluid.result import number, percent, seconds


def render_page(template: str, **values: Any) -> str:
    """A page of `templates/` as HTML without any reference to the network."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("validation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Only the plots are trusted as they are: matplotlib escapes the text in them.
    environment.filters.update(number=number, percent=percent, seconds=seconds, trusted=Markup)
    return environment.get_template(template).render(**values)


def inline_svg(name: str, draw: Callable[[Path], None]) -> str:
    """A plot as an SVG element; its ids begin with `name`, as a page has room for each id once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plot.svg"
        draw(path)
        text = path.read_text(encoding="utf-8")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'( id="|url\(#|href="#)', rf"\1{name}-", text)
