"""Metrics pages of an engine by hand: what it has done so far, and what it says of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from fluid.traces.scrapes import samples_of
from tests.support.metrics_page import START_S, length_lines
from validation.live.scrape import Scrape

LABELS = '{engine="0",model_name="made-up"}'


@dataclass
class Engine:
    """An engine with requests of a few lengths; each token comes `tpot_s` after the one before."""

    tpot_s: float = 0.015
    prompts: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    running: int = 0
    started_s: float = START_S
    preempted: int = 0
    gap_sum_s: float = 0.0

    def finish(self, count: int, prompt: int = 512, output: int = 120) -> None:
        """So many more requests end."""
        self.prompts += [prompt] * count
        self.outputs += [output] * count
        self.gap_sum_s += count * (output - 1) * self.tpot_s

    def restart(self) -> None:
        """Everything from 0 again."""
        self.prompts, self.outputs, self.running, self.gap_sum_s = [], [], 0, 0.0
        self.started_s += 1e4

    @property
    def page(self) -> str:
        gaps = sum(self.outputs) - len(self.outputs)
        lines = [
            *length_lines("vllm:request_prompt_tokens", self.prompts),
            *length_lines("vllm:request_generation_tokens", self.outputs),
            f"vllm:prompt_tokens_total{LABELS} {sum(self.prompts)}",
            f"vllm:num_preemptions_total{LABELS} {self.preempted}",
            f"vllm:inter_token_latency_seconds_sum{LABELS} {self.gap_sum_s!r}",
            f"vllm:inter_token_latency_seconds_count{LABELS} {gaps}",
            f"vllm:time_to_first_token_seconds_sum{LABELS} {0.1 * len(self.prompts)!r}",
            f"vllm:time_to_first_token_seconds_count{LABELS} {len(self.prompts)}",
            f"vllm:num_requests_running{LABELS} {self.running}",
            f"vllm:num_requests_waiting{LABELS} 0",
            f"vllm:kv_cache_usage_perc{LABELS} 0.16",
            f"process_start_time_seconds {self.started_s}",
        ]
        return "\n".join(lines) + "\n"

    def scrape(self, at_s: float) -> Scrape:
        """The page at a time."""
        return Scrape(samples_of(self.page, "page"), START_S + at_s, "page")
