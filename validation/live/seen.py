"""What happened between two scrapes, per engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fluid.errors import InputError
from fluid.traces.metrics_programs import Program, plain
from fluid.traces.prometheus import (
    Histogram,
    lengths_of,
    marginal,
    of_model,
    page_program,
    require_one_model,
)
from fluid.traces.scrapes import Sample, grown
from validation.live.scrape import Scrape


@dataclass(frozen=True)
class Seen:
    """A window between two scrapes, summed over the engines in it.

    Attributes:
        at_s: When it ended, seconds since 1970.
        seconds: How long it was.
        engines: How many engines the scrapes are of.
        arrived: Requests that were sent: those that finished, and by how many more there are now.
        prompts, outputs: Lengths of those that finished.
        computed_prompt_tokens: Prompt tokens that were computed, less those of a prefix cache.
        gap_sum_s, gap_count: Sum and number of the times between output tokens.
        ttft_sum_s, ttft_count: Of the times to the first token.
        preempted: Evictions.
        queued: Requests that wait at its end.
        kv_share: Mean share of the KV cache in use at its end; None where the page does not tell.
    """

    at_s: float
    seconds: float
    engines: int
    arrived: float
    prompts: Histogram
    outputs: Histogram
    computed_prompt_tokens: float
    gap_sum_s: float
    gap_count: float
    ttft_sum_s: float
    ttft_count: float
    preempted: float
    queued: float
    kv_share: float | None

    @property
    def finished(self) -> float:
        """Requests that ended."""
        return self.prompts.count

    @property
    def tpot_s(self) -> float | None:
        """Mean time between output tokens; None where there were none."""
        return self.gap_sum_s / self.gap_count if self.gap_count else None

    @property
    def ttft_s(self) -> float | None:
        """Mean time to the first token; None where there was none."""
        return self.ttft_sum_s / self.ttft_count if self.ttft_count else None


def require_page(scrape: Scrape, model: str | None) -> Program:
    """Refuse a page that tells nothing of requests.

    Raises:
        InputError: It is of another program, or of several models and none is named.
    """
    program = page_program(scrape.samples, scrape.place)
    if any(one.plain == plain(f"{program.prompt}_count") for one in scrape.samples):
        require_one_model(scrape.samples, program, model, scrape.place)
    return program


def seen_between(earlier: Scrape, later: Scrape, model: str | None = None) -> Seen:
    """What happened between two scrapes of the same server.

    Raises:
        CountersFellError: It started again in between.
        InputError: No time passed, or the page contradicts itself.
    """
    program = require_page(later, model)
    seconds = later.at_s - earlier.at_s
    if seconds <= 0:
        raise InputError("", "no newer scrape", "a page that is written again", later.place)
    old, new = (of_model(one.samples, program, model) for one in (earlier, later))
    growth = grown(new, old, program.prefix, later.place)
    prompts, outputs = (
        lengths_of(growth, name, later.place) for name in (program.prompt, program.output)
    )
    if prompts.count != outputs.count:
        said = f"{prompts.count:g} prompts and {outputs.count:g} outputs"
        raise InputError(program.prompt, said, "as many of both", later.place)
    if prompts.count:  # whose contradictions are refused here, one by one
        marginal(prompts, program.prompt, later.place)
        marginal(outputs, program.output, later.place)
    counter = program.counters[0] if program.counters else f"{program.prompt}_sum"
    cached = _total(growth, program.cached) if program.cached else 0.0
    gap_sum_s, gap_count = _sum_and_count(growth, program.gaps)
    ttft_sum_s, ttft_count = _sum_and_count(growth, (program.ttft,))
    shares = [one.value for one in new if one.plain in map(plain, program.kv_share)]
    more = sum(_total(new, one) - _total(old, one) for one in program.in_system)
    return Seen(
        at_s=later.at_s,
        seconds=seconds,
        engines=_engines(new, program),
        arrived=max(prompts.count + more, 0.0),
        prompts=prompts,
        outputs=outputs,
        computed_prompt_tokens=max(_total(growth, counter) - cached, 0.0),
        gap_sum_s=gap_sum_s,
        gap_count=gap_count,
        ttft_sum_s=ttft_sum_s,
        ttft_count=ttft_count,
        preempted=_total(growth, program.preemptions),
        queued=_total(new, program.queued),
        kv_share=sum(shares) / len(shares) if shares else None,
    )


def _engines(samples: Sequence[Sample], program: Program) -> int:
    """Label sets of one metric, but for the model."""
    name = plain(f"{program.prompt}_count")
    engines = {
        frozenset(one for one in sample.labels if one[0] != program.model)
        for sample in samples
        if sample.plain == name
    }
    return max(len(engines), 1)


def _total(samples: Sequence[Sample], name: str) -> float:
    return sum(one.value for one in samples if name and one.plain == plain(name))


def _sum_and_count(samples: Sequence[Sample], names: Sequence[str]) -> tuple[float, float]:
    """Of the first histogram that the page has."""
    for name in names:
        count = _total(samples, f"{name}_count")
        if name and count:
            return _total(samples, f"{name}_sum"), count
    return 0.0, 0.0
