"""Where metrics are read: a page at an address, a file, or a Prometheus that scrapes the engine."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fluid.errors import InputError
from fluid.files import unreadable
from fluid.traces.metrics_programs import PROGRAMS, plain
from fluid.traces.scrapes import Sample, read_samples, samples_of

TIMEOUT_S = 10.0
MOST_BYTES = 1 << 26
"""Of an answer: a page of a thousand engines."""

_RANGE_S = 300
"""How far back a sample in a Prometheus may lie; its own limit unless told otherwise."""


@dataclass(frozen=True)
class Scrape:
    """All samples of a server at one time.

    Attributes:
        at_s: When they were taken, seconds since 1970.
        place: Where they come from, for errors.
    """

    samples: list[Sample]
    at_s: float
    place: str


class Source(Protocol):
    """Gives the newest scrape."""

    def read(self) -> Scrape:
        """The newest scrape.

        Raises:
            InputError: There is none, or it is no metrics page.
        """
        ...


@dataclass(frozen=True)
class Page:
    """A metrics page at an address."""

    url: str

    def read(self) -> Scrape:
        """Fetch it."""
        text = _fetched(self.url)
        return Scrape(samples_of(text, self.url), time.time(), self.url)


@dataclass(frozen=True)
class PageFile:
    """A metrics page in a file that something else writes again and again."""

    path: Path

    def read(self) -> Scrape:
        """Read it; its time is that of the samples, or else of the file."""
        samples = read_samples(self.path)
        times_s = [one.scraped_s for one in samples if one.scraped_s is not None]
        try:
            at_s = max(times_s) if times_s else self.path.stat().st_mtime
        except OSError as error:
            raise unreadable(error, self.path) from None
        return Scrape(samples, at_s, str(self.path))


@dataclass(frozen=True)
class Prometheus:
    """Series in a Prometheus.

    Attributes:
        url: Its address, without the path of its interface.
        selector: Which series, as ``{job="vllm"}``.
    """

    url: str
    selector: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\{[^{}]*\}", self.selector.strip()):
            raise InputError("selector", self.selector, 'labels in braces, as {job="vllm"}')

    def read(self) -> Scrape:
        """The last sample of each series, with its own time."""
        inner = self.selector.strip()[1:-1].strip().rstrip(",")
        names = "|".join(f"{one.prefix[:-1]}[:_].+" for one in PROGRAMS)
        wanted = f'__name__=~"{names}|process_start_time_seconds"'
        query = "{" + (f"{inner}," if inner else "") + wanted + f"}}[{_RANGE_S}s]"
        address = f"{self.url.rstrip('/')}/api/v1/query"
        text = _fetched(f"{address}?{urllib.parse.urlencode({'query': query})}", address)
        try:
            series = json.loads(text)["data"]["result"]
            samples = [_sample(one["metric"], one["values"][-1]) for one in series]
        except (ValueError, KeyError, IndexError, TypeError):
            raise InputError("prometheus", self.url, "the address of a Prometheus") from None
        if not samples:
            allowed = "one that matches series of vLLM, SGLang, TGI or Dynamo in this Prometheus"
            raise InputError("selector", self.selector, allowed)
        newest_s = max(one.scraped_s or 0.0 for one in samples)
        return Scrape(samples, newest_s, f"{self.url} {self.selector}")


def _sample(metric: dict[str, str], value: list[Any]) -> Sample:
    name = metric["__name__"]
    labels = frozenset((key, text) for key, text in metric.items() if key != "__name__")
    return Sample(name, plain(name), labels, float(value[1]), float(value[0]))


def source_of(metrics: str) -> Source:
    """The source of an address, or of a path.

    Raises:
        InputError: The address is of no kind that can be fetched.
    """
    if "://" not in metrics:
        return PageFile(Path(metrics))
    if urllib.parse.urlsplit(metrics).scheme not in ("http", "https"):
        raise InputError("metrics", metrics, "http://HOST:PORT/metrics, or a file")
    return Page(metrics)


def _fetched(url: str, shown: str | None = None) -> str:
    """What lies at an address."""
    shown = shown or url
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            data: bytes = answer.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise InputError("", f"HTTP {error.code}", _said(error), shown) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        allowed = "an address that answers with a metrics page"
        raise InputError("", " ".join(str(reason).split()), allowed, shown) from None
    if len(data) > MOST_BYTES:
        raise InputError("", "more than 64 MiB", "a metrics page", shown)
    return data.decode("utf-8", "replace")


def _said(error: urllib.error.HTTPError) -> str:
    """What a Prometheus says of a query that it refuses; else what is expected."""
    try:
        return f"a query without: {json.loads(error.read(1 << 16))['error']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "an address that answers with a metrics page"
