"""Files that people brought, cut to the smallest that asks the question, with the right answers.

More of them are asked of samples in `tests/data/traces`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from fluid.errors import InputError
from fluid.traces import (
    Digest,
    ReadOptions,
    Snapshot,
    detect_format,
    digest,
    open_trace,
    read_trace,
)
from tests.support.trace_samples import DATA, TOKENIZER

CASES = Path(__file__).parents[1] / "data" / "cases"


@dataclass(frozen=True)
class Answer:
    """What is right for a file: its format, rate, mean lengths, and words of a caveat."""

    form: str
    rate_per_s: float | None
    prompt_tokens: float
    output_tokens: float
    requests: int
    told: str = "Poisson"
    part: str | None = None


ANSWERS = {
    # 7 gaps in 3.75 s; the prompts have 2 of their blocks of 16 tokens in common.
    "02-bailian-seconds.jsonl": Answer("bailian", 7 / 3.75, 222, 216.875, 8, "12.6 % of the pro"),
    "04-request-rate-inf.json": Answer("vllm-bench", None, 200, 150, 30, "a finite job"),
    "07-vllm-bench-no-detail.json": Answer("vllm-bench", 7.12, 1024, 128, 500, "mean is known"),
    "08-sglang-two-runs.jsonl": Answer("sglang-bench", 8.0, 500, 500, 3, part="2"),
    "09-dynamo.prom": Answer("prometheus", None, 280_000 / 300, 300, 300),
    "09-sglang.prom": Answer("prometheus", None, 280_000 / 300, 300, 300),
    "09-tgi.prom": Answer("prometheus", None, 120, 12_500 / 150, 150),
    "10-counters-exceed-histograms.prom": Answer(
        "prometheus", None, 300, 150, 40, "vllm:prompt_tokens_total is 44,000"
    ),
    "11-aiperf-profile_export.jsonl": Answer("aiperf", 4.0, 550, 150, 5, "does not say how"),
    "11-chat-messages.jsonl": Answer("messages", None, 3, 2, 1),
    "11-inference-perf-per_request.json": Answer("inference-perf", 5.0, 192, 64, 5, ""),
    "11-inference-perf-stage.json": Answer("inference-perf-stage", 10.0, 200, 62, 600),
    "11-llmperf-individual.json": Answer("llmperf", None, 550, 150, 3),
    "11-servegen-dataset.json": Answer("servegen", None, 500, 50, 1, "has no rate"),
    "11-sharegpt.jsonl": Answer("sharegpt", None, 3, 2, 1),
    "11-splitwise-sim.csv": Answer("splitwise", 1 / 1.5, 3072, 20, 2, ""),
    "11-vidur-lengths.csv": Answer("vidur-lengths", None, 2500, 75, 2),
    "11-wildchat.jsonl": Answer("wildchat", None, 3, 2, 1),
    "13-guidellm-no-requests.json": Answer("guidellm", 1.98, 500, 120, 200, "lists 0 of 200"),
    "14-sharegpt-system-first.json": Answer("sharegpt", None, 14, 1, 1),
}
OWN = {
    "bailian.jsonl": Answer("bailian", 2 / 4.25, 1649 / 3, 208 / 3, 3, "2.91 % of the prompt"),
    "bench-two-runs.jsonl": Answer(
        "sglang-bench", None, 1649 / 3, 208 / 3, 3, "a finite job", part="2"
    ),
    "vllm-bench-totals.json": Answer("vllm-bench", 4.88, 750, 125.5, 400, "mean is known"),
    "metrics-renamed.prom": Answer("prometheus", None, 415, 152, 100, "_total is 83,000"),
    "azure-2025.csv": Answer("azure", 2 / 4.49, 1649 / 3, 208 / 3, 3, "2 of 3 requests have im"),
    "guidellm-sampled.json": Answer("guidellm", 2.96, 420, 110, 300, "lists 1 of 300"),
    "messages.jsonl": Answer("messages", None, 4, 7 / 3, 3),
}


def digested(path: Path, part: str | None) -> tuple[Digest, float | None, tuple[str, ...]]:
    trace = open_trace(path, options=ReadOptions(tokenizer=TOKENIZER, part=part))
    if isinstance(trace, Snapshot):
        return trace.digest(), trace.rate_per_s, trace.caveats
    found = digest(trace.chunks)
    return found, found.rate_per_s if trace.timed else trace.rate_per_s, trace.caveats


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        *((CASES / name, answer) for name, answer in ANSWERS.items()),
        *((DATA / name, answer) for name, answer in OWN.items()),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_a_file_gives_its_answer(path: Path, answer: Answer) -> None:
    assert detect_format(path).name == answer.form
    found, rate_per_s, caveats = digested(path, answer.part)
    assert rate_per_s == (
        None if answer.rate_per_s is None else pytest.approx(answer.rate_per_s, rel=1e-9)
    )
    assert found.means[1:3] == pytest.approx([answer.prompt_tokens, answer.output_tokens])
    assert found.requests == answer.requests
    assert any(answer.told in caveat for caveat in caveats) or not answer.told


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (CASES / "08-sglang-two-runs.jsonl", ("rate 2.0, 3 requests", "rate 8.0, 3 requests")),
        (DATA / "bench-two-runs.jsonl", ("rate 4.0, 90 requests", "rate inf, 3 requests")),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_runs_are_listed_where_none_is_chosen(path: Path, parts: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="part: got 'nothing'") as caught:
        open_trace(path)
    assert f"1 (request {parts[0]}), 2 (request {parts[1]})" in caught.value.allowed


def test_a_finite_job_is_no_tape() -> None:
    """Whatever a server does with a burst, it is no answer to whether it carries a rate."""
    with pytest.raises(InputError, match="a finite job; its rate is not an arrival rate"):
        read_trace(CASES / "04-request-rate-inf.json")
