"""Whether service levels are kept, by the 95 % interval of what replications measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fluid.result import Table, number, percent
from fluid.service_levels import WORDS
from fluid.workload import LIMITS
from validation.simulator.metrics import Floats, Interval, Replication, interval
from validation.simulator.model import Model
from validation.simulator.recording import LATENCY, TPOT, TTFT

Kept = Literal["kept", "broken", "undecided"]

JOINT = "all"
"""The limit that stands for all limits of a promise together."""

_METRICS = {"ttft_s": TTFT, "tpot_s": TPOT, "latency_s": LATENCY}

_NORMAL = 1.959963984540054


@dataclass(frozen=True)
class Level:
    """One limit of a promise beside what was measured; or all of its limits together.

    Attributes:
        name: Whose it is: a class, or several together.
        limit: "ttft_s", "tpot_s", "latency_s", or `JOINT`.
        limit_s: None where it stands for all.
        quantile: Share of the requests that has to meet it; None for a limit of the mean.
        mean_s, p99_s: Of those that completed; None where it stands for all, or is not kept.
        share, share_low, share_high: Of the requests that have ended, those that met it, with the
            95 % interval; None for a limit of the mean.
        mean_low_s, mean_high_s: That of the mean.
        verdict: "kept" or "broken" where the interval says so, else "undecided".
    """

    name: str
    limit: str
    limit_s: float | None
    quantile: float | None
    mean_s: float | None
    mean_low_s: float | None
    mean_high_s: float | None
    p99_s: float | None
    share: float | None
    share_low: float | None
    share_high: float | None
    verdict: Kept

    @property
    def asked(self) -> str:
        """What is asked, in words.

        >>> from validation.experiments.slo.levels import Level
        >>> nothing = [None] * 7
        >>> Level("chat", "ttft_s", 1.0, 0.99, *nothing, "undecided").asked
        'p99 TTFT ≤ 1 s'
        """
        if self.limit_s is None:
            return f"all, {_quantile_words(self.quantile)}"
        return f"{_quantile_words(self.quantile)} {WORDS[self.limit]} ≤ {number(self.limit_s)} s"


def _quantile_words(quantile: float | None) -> str:
    return "mean" if quantile is None else f"p{100 * quantile:.9g}"


def judged(low: float, high: float) -> Kept:
    """The verdict on a margin that has to be at least 0, by its interval."""
    if low >= 0:
        return "kept"
    return "broken" if high < 0 else "undecided"


def share_interval(met: Floats, ended: Floats) -> Interval:
    """Share of the requests that meet a limit, with an interval of 95 %.

    Student's t over replications, and no narrower than Wilson's interval (1927) of independent
    requests, which knows that none of a hundred is not none at all.

    Args:
        met, ended: Requests of each replication, shape (R,).

    >>> import numpy as np
    >>> from validation.experiments.slo.levels import share_interval
    >>> found = share_interval(np.array([50.0, 50.0]), np.array([50.0, 50.0]))
    >>> found.mean, round(found.low, 3)
    (1.0, 0.963)
    """
    some = ended > 0
    if not some.any():
        return Interval(math.nan, math.nan)
    number_of = float(ended[some].sum())
    found = interval(met[some] / ended[some])
    spread = _NORMAL**2 / number_of
    centre = (found.mean + spread / 2) / (1 + spread)
    half = math.sqrt(max(found.mean * (1 - found.mean), 0.0) * spread + spread**2 / 4)
    half /= 1 + spread
    widest = max(found.mean - (centre - half), centre + half - found.mean)
    return Interval(found.mean, found.half_width if found.half_width > widest else widest)


def least_requests(quantile: float) -> int:
    """Requests, all within their limits, after which a promise with this quantile can be kept.

    From there on the lower end of `share_interval` is the quantile: n/(n + z²).

    >>> from validation.experiments.slo.levels import least_requests
    >>> least_requests(0.99)
    381
    """
    return math.ceil(_NORMAL**2 * quantile / (1 - quantile))


def levels_of(model: Model, replications: Sequence[Replication], grows: bool) -> tuple[Level, ...]:
    """Every limit of every promise of a model; where a promise has several, all together last.

    Args:
        grows: Whether the backlog grows, which breaks in the end what a queue can break.
    """
    found: list[Level] = []
    shapes = model.shapes
    for promise in range(int(shapes["promise"].max(initial=-1)) + 1):
        shape = shapes[shapes["promise"] == promise]
        classes = np.unique(shape["report_class"])
        limits = {one: float(shape[f"{one.removesuffix('_s')}_limit_s"][0]) for one in LIMITS}
        limits = {name: limit_s for name, limit_s in limits.items() if limit_s < math.inf}
        quantile = None if shape["quantile"][0] == 0 else float(shape["quantile"][0])
        whole = len(classes) == model.classes
        own = [
            _level(name, limit_s, quantile, replications, classes, whole, grows)
            for name, limit_s in limits.items()
        ]
        found += own
        if len(own) > 1:
            found.append(_joint(quantile, replications, classes, own, grows))
    return tuple(found)


def _level(
    name: str,
    limit_s: float,
    quantile: float | None,
    replications: Sequence[Replication],
    classes: NDArray[np.int64],
    whole: bool,
    grows: bool,
) -> Level:
    metric = _METRICS[name]
    count = np.array([one.count[classes, metric].sum() for one in replications])
    total = np.array([np.nansum((one.count * one.mean_s)[classes, metric]) for one in replications])
    mean = interval(total[count > 0] / count[count > 0]) if (count > 0).any() else None
    place = -1 if whole else int(classes[0])
    p99_s = None
    if (whole or len(classes) == 1) and mean is not None:
        p99_s = float(np.nanmean([one.quantile_s[place, metric, 2] for one in replications]))
    share = None
    if quantile is None:
        verdict = "undecided" if mean is None else _judged_within(limit_s, mean)
    else:
        met = np.array([one.met_each[classes, LIMITS.index(name)].sum() for one in replications])
        share = share_interval(met, _ended(replications, classes))
        verdict = judged(share.low - quantile, share.high - quantile)
    if grows and name != "tpot_s":
        verdict = "broken"
    figures_s: tuple[float | None, float | None, float | None] = (None, None, None)
    if mean is not None:
        figures_s = (mean.mean, _known(mean.low), _known(mean.high))
    name_of = str(int(classes[0])) if len(classes) == 1 else JOINT
    return Level(name_of, name, limit_s, quantile, *figures_s, p99_s, *_of_share(share), verdict)


def _of_share(share: Interval | None) -> tuple[float | None, float | None, float | None]:
    if share is None:
        return None, None, None
    return _known(share.mean), _known(share.low), _known(share.high)


def _joint(
    quantile: float | None,
    replications: Sequence[Replication],
    classes: NDArray[np.int64],
    own: Sequence[Level],
    grows: bool,
) -> Level:
    """All limits of a promise: of each request, or of all means."""
    name, nothing = own[0].name, (None, None, None, None)
    if quantile is None:
        verdict = together(one.verdict for one in own)
        return Level(name, JOINT, None, None, *nothing, None, None, None, verdict)
    met = np.array([one.met_limits[classes].sum() for one in replications])
    share = share_interval(met, _ended(replications, classes))
    verdict = "broken" if grows else judged(share.low - quantile, share.high - quantile)
    return Level(name, JOINT, None, quantile, *nothing, *_of_share(share), verdict)


def together(verdicts: Iterable[Kept]) -> Kept:
    """Of several promises at once: broken where one is, kept where all are."""
    words = set(verdicts)
    if "broken" in words:
        return "broken"
    return "kept" if words == {"kept"} else "undecided"


def _judged_within(limit_s: float, mean: Interval) -> Kept:
    return judged(limit_s - mean.high, limit_s - mean.low)


def _ended(replications: Sequence[Replication], classes: NDArray[np.int64]) -> Floats:
    return np.array([one.limited[classes].sum() for one in replications])


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


COLUMNS = ("class", "asked", "mean s", "p99 s", "within", "levels")
"""Headings of a row of `cells`."""

SPARE = ("p99 s", "mean s")


def cells(one: Level) -> tuple[str, ...]:
    """A level as a row of a table."""
    share = "–"
    if one.share is not None:
        share = percent(one.share, 2)
        if one.share_low is not None and one.share_high is not None:
            share += f" ± {number(50 * (one.share_high - one.share_low), 2)}"
    return (one.name, one.asked, number(one.mean_s), number(one.p99_s), share, one.verdict)


def levels_table(rows: Sequence[tuple[str, Sequence[Level]]]) -> Table:
    """Service levels of several results, each under its label."""
    lines = [(label, *cells(one)) for label, levels in rows for one in levels]
    return Table(
        "Service levels", ("policy", *COLUMNS), tuple(lines), left=(0, 1, 2, 6), spare=SPARE
    )
