"""The programs whose metrics pages tell of requests, and how to know those that do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


def plain(name: str) -> str:
    """A metric's name with `_` for `:`, as some collectors rewrite it."""
    return name.replace(":", "_")


@dataclass(frozen=True)
class Program:
    """Where a program's page keeps what is asked of it.

    Attributes:
        prompt: Histogram of prompt lengths of finished requests.
        output: Histogram of their output lengths.
        model: Label with the name of the model.
        prefix: What the plain names of its metrics begin with.
        counters: Counters of all prompt and all output tokens, where there are any.
        preemptions: Counter of evicted requests, where there is one.
    """

    name: str
    prompt: str
    output: str
    model: str
    prefix: str
    counters: tuple[str, str] | None = None
    preemptions: str = ""


PROGRAMS = (
    Program(
        "vLLM",
        "vllm:request_prompt_tokens",
        "vllm:request_generation_tokens",
        "model_name",
        "vllm_",
        ("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
        "vllm:num_preemptions_total",
    ),
    Program(
        "SGLang",
        "sglang:prompt_tokens_histogram",
        "sglang:generation_tokens_histogram",
        "model_name",
        "sglang_",
        ("sglang:prompt_tokens_total", "sglang:generation_tokens_total"),
        "sglang:num_retracted_requests_total",
    ),
    Program("TGI", "tgi_request_input_length", "tgi_request_generated_tokens", "model_id", "tgi_"),
    Program(
        "Dynamo",
        "dynamo_frontend_input_sequence_tokens",
        "dynamo_frontend_output_sequence_tokens",
        "model",
        "dynamo_",
    ),
    Program(
        "Dynamo",
        "nv_llm_http_service_input_sequence_tokens",
        "nv_llm_http_service_output_sequence_tokens",
        "model",
        "nv_llm_",
    ),
)

_OTHERS = {
    "node_": "node_exporter",
    "DCGM_": "the DCGM exporter",
    "container_": "cAdvisor",
    "kube_": "kube-state-metrics",
    "prometheus_": "Prometheus itself",
    "nv_": "Triton",
    "llamacpp_": "llama.cpp",
    "trtllm_": "TensorRT-LLM",
    "ray_": "Ray",
}
# Every program written with a client library has these.
_COMMON = ("python_", "process_", "go_", "promhttp_", "http_", "scrape_")


def program_of(names: Iterable[str]) -> Program | None:
    """The program that a page with these plain names is of, best one that has the histograms."""
    present = set(names)
    for program in PROGRAMS:
        if plain(f"{program.prompt}_count") in present:
            return program
    return next(
        (one for one in PROGRAMS if any(name.startswith(one.prefix) for name in present)), None
    )


def other_page(names: Iterable[str]) -> str:
    """Whose page it is, as far as its names tell."""
    prefixes = Counter(
        name.partition("_")[0] + "_" for name in names if not name.startswith(_COMMON)
    )
    for prefix, count in prefixes.most_common():
        known = _OTHERS.get(prefix)
        return f"a page of {known}" if known else f"a page with {count} metrics {prefix}…"
    return "a page without metrics of its own"
