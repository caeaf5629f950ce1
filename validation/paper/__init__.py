"""The paper's experiments on this toolkit's simulator, beside its published figures.

``python -m validation.paper`` runs them all and writes a page with figures. A new experiment is a
file, its explanation in `templates/`, and a line here; the page has them in this order.
"""

from __future__ import annotations

from validation.paper.buffers import BUFFERS
from validation.paper.clipped import CLIPPED_ARRIVALS
from validation.paper.differences import DIFFERENCES
from validation.paper.experiment import Experiment
from validation.paper.grids import CHAT_GRID, LIMIT_GRID
from validation.paper.horizon import HORIZON
from validation.paper.largest_rates import LARGEST_RATES
from validation.paper.rates import CHATS, DISAGGREGATED, LONG_DECODES, SINGLE_CLASS, TWO_CLASSES
from validation.paper.restarts import RESTARTS
from validation.paper.twenty_runs import TWENTY
from validation.paper.waiting import WAITING

_ALL = (
    SINGLE_CLASS,
    TWO_CLASSES,
    LARGEST_RATES,
    TWENTY,
    LONG_DECODES,
    RESTARTS,
    DISAGGREGATED,
    CHATS,
    CLIPPED_ARRIVALS,
    DIFFERENCES,
    LIMIT_GRID,
    CHAT_GRID,
    WAITING,
    HORIZON,
    BUFFERS,
)

EXPERIMENTS: dict[str, Experiment] = {one.name: one for one in _ALL}

__all__ = ["EXPERIMENTS", "Experiment"]
