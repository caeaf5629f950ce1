"""The page: published figures beside measured ones, and what explains their differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from fluid.files import write_text
from fluid.plots.style import STYLE
from validation.paper import EXPERIMENTS
from validation.paper.experiment import MET, NOT_MET, OPEN, ExperimentResult, Sizes, seconds
from validation.paper.published import SOURCE
from validation.paper.settings import CLIPPED_RATE

FIGURES = "images"
"""Folder of the figures beside the page."""


@dataclass(frozen=True)
class Cost:
    """What a reproduction took; CPU time is that of all threads."""

    wall_s: float
    cpu_s: float
    cores: int


def render(results: Mapping[str, ExperimentResult], sizes: Sizes, cost: Cost) -> str:
    """The page as Markdown; every measured number in it comes from the results."""
    environment = Environment(
        loader=PackageLoader("validation.paper"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["seconds"] = seconds
    environment.filters["percent"] = lambda share, digits=0: f"{100 * share:.{digits}f} %"
    environment.filters["milliseconds"] = lambda value: f"{1e3 * value:.1f} ms"
    counts = Counter(claim.verdict for one in results.values() for claim in one.claims)
    return environment.get_template("page.md.jinja").render(
        experiments=EXPERIMENTS,
        results=results,
        sizes=sizes,
        cost=cost,
        source=SOURCE,
        figures=FIGURES,
        clipped_rate=CLIPPED_RATE,
        counts=counts,
        MET=MET,
        NOT_MET=NOT_MET,
        OPEN=OPEN,
    )


def figure_name(name: str) -> str:
    """File of an experiment's figure."""
    return f"reproduction-{name}.svg"


def write_page(
    out: Path, results: Mapping[str, ExperimentResult], figures: Mapping[str, Figure], text: str
) -> None:
    """Figures first, then ``reproduction.md``, which refers to them."""
    folder = out / FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    # By the style's hash salt, and without a date, the same results make the same files.
    with mpl.rc_context(STYLE):
        for name in results:
            path = folder / figure_name(name)
            figures[name].savefig(path, bbox_inches="tight", metadata={"Date": None})
    write_text(out / "reproduction.md", text)
