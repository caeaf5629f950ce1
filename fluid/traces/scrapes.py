"""Scrapes of a metrics page: its samples, and the difference of two scrapes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from fluid.errors import InputError
from fluid.files import read_text, unreadable
from fluid.parsing import guarded
from fluid.traces.metrics_programs import plain

_GROWING = ("_bucket", "_count", "_sum", "_total")
_STARTED = "process_start_time_seconds"
Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Sample:
    """A value of a page.

    Attributes:
        name: As on the page; `plain` has `_` for `:`.
        scraped_s: Time of the scrape, where the page tells.
    """

    name: str
    plain: str
    labels: Labels
    value: float
    scraped_s: float | None

    def label(self, name: str) -> str:
        """A label's value, "" where it has none."""
        return dict(self.labels).get(name, "")


@dataclass(frozen=True)
class Window:
    """What happened between two scrapes.

    Attributes:
        seconds: How long it was.
        by_the_files: Whether only the files' times of modification tell.
    """

    samples: list[Sample]
    seconds: float
    by_the_files: bool


class CountersFellError(InputError):
    """The server that was scraped started again between two scrapes."""


def read_samples(path: Path) -> list[Sample]:
    """All samples of a page in a file.

    Raises:
        InputError: It is no Prometheus text.
    """
    return samples_of(read_text(path), str(path))


def samples_of(text: str, file: str) -> list[Sample]:
    """All samples of a page.

    Args:
        file: Where it comes from, for errors.

    Raises:
        InputError: It is no Prometheus text.
    """
    from prometheus_client.parser import text_string_to_metric_families

    with guarded(file, "Prometheus text"):
        families = text_string_to_metric_families(text)
        return [
            Sample(
                one.name,
                plain(one.name),
                frozenset(one.labels.items()),
                one.value,
                None if one.timestamp is None else float(one.timestamp),
            )
            for family in families
            for one in family.samples
        ]


def window(later: Path, earlier: Path, prefix: str) -> Window:
    """What grew between two scrapes of a server, of the metrics with a prefix.

    Raises:
        InputError: Counters fell or are gone, so that the server started again; or the earlier
            scrape is not the earlier one.
    """
    new, old = read_samples(later), read_samples(earlier)
    if not any(_grows(one, prefix) for one in old):
        allowed = f"an earlier scrape of the same server, with metrics {prefix}…"
        raise InputError("since", str(earlier), allowed)
    growth = grown(new, old, prefix, str(later))
    seconds, by_the_files = _seconds(new, old, later, earlier)
    return Window(growth, seconds, by_the_files)


def grown(new: list[Sample], old: list[Sample], prefix: str, file: str) -> list[Sample]:
    """By how much every counter with a prefix grew from one scrape to the next.

    Raises:
        CountersFellError: One fell or is gone, so that the server started again, or the scrapes are
            in the wrong order.
    """
    _refuse_restart(new, old, file)
    before = {(one.plain, one.labels): one for one in old if _grows(one, prefix)}
    after = {(one.plain, one.labels): one for one in new if _grows(one, prefix)}
    for key, one in before.items():
        now = after[key].value if key in after else "nothing"
        if isinstance(now, str) or now < one.value:
            said = f"{one.value:g} before and {now if isinstance(now, str) else f'{now:g}'} now"
            raise CountersFellError(one.name, said, _NOT_RESET, file)
    return [
        replace(one, value=one.value - (before[key].value if key in before else 0.0))
        for key, one in after.items()
    ]


_NOT_RESET = (
    "counters that only grow from the scrape of since to this one: the server started again in"
    " between, or the two are in the wrong order"
)


def _grows(one: Sample, prefix: str) -> bool:
    return one.plain.startswith(prefix) and one.plain.endswith(_GROWING)


def _refuse_restart(new: list[Sample], old: list[Sample], file: str) -> None:
    """Starts of the process are told as well, where a page has them."""
    starts = [
        {one.value for one in samples if one.name == _STARTED and not one.labels}
        for samples in (old, new)
    ]
    if all(starts) and starts[0] != starts[1]:
        said = f"{max(starts[0]):.0f} before and {max(starts[1]):.0f} now"
        raise CountersFellError(_STARTED, said, _NOT_RESET, file)


def _seconds(
    new: list[Sample], old: list[Sample], later: Path, earlier: Path
) -> tuple[float, bool]:
    """Length of the window, by the samples' own times or else by those of the files."""
    scraped = [
        max((one.scraped_s for one in samples if one.scraped_s is not None), default=None)
        for samples in (new, old)
    ]
    if scraped[0] is not None and scraped[1] is not None:
        seconds, by_the_files = scraped[0] - scraped[1], False
    else:
        seconds, by_the_files = _modified_s(later) - _modified_s(earlier), True
    if not (seconds > 0 and math.isfinite(seconds)):
        said = f"{seconds:g} s before this scrape"
        raise InputError("since", said, "a file that was scraped, and written, earlier")
    return seconds, by_the_files


def _modified_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError as error:
        raise unreadable(error, path) from None
