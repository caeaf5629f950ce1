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
        in_system: Gauges that add up to the requests that were sent and have not ended.
        queued: Gauge of those of them that wait.
        gaps: Histograms of the time between output tokens, by release; what counts one value per
            request is none of them.
        ttft: Histogram of the time to the first token.
        kv_share: Gauges of the share of the KV cache in use, by release.
        cached: Counter of prompt tokens that a prefix cache had.
    """

    name: str
    prompt: str
    output: str
    model: str
    prefix: str
    counters: tuple[str, str] | None = None
    preemptions: str = ""
    in_system: tuple[str, ...] = ()
    queued: str = ""
    gaps: tuple[str, ...] = ()
    ttft: str = ""
    kv_share: tuple[str, ...] = ()
    cached: str = ""


PROGRAMS = (
    Program(
        "vLLM",
        "vllm:request_prompt_tokens",
        "vllm:request_generation_tokens",
        "model_name",
        "vllm_",
        ("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
        "vllm:num_preemptions_total",
        ("vllm:num_requests_running", "vllm:num_requests_waiting"),
        "vllm:num_requests_waiting",
        ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
        "vllm:time_to_first_token_seconds",
        ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        "vllm:prefix_cache_hits_total",
    ),
    Program(
        "SGLang",
        "sglang:prompt_tokens_histogram",
        "sglang:generation_tokens_histogram",
        "model_name",
        "sglang_",
        ("sglang:prompt_tokens_total", "sglang:generation_tokens_total"),
        "sglang:num_retracted_requests_total",
        ("sglang:num_running_reqs", "sglang:num_queue_reqs"),
        "sglang:num_queue_reqs",
        ("sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds"),
        "sglang:time_to_first_token_seconds",
        ("sglang:token_usage",),
    ),
    Program(
        "TGI",
        "tgi_request_input_length",
        "tgi_request_generated_tokens",
        "model_id",
        "tgi_",
        in_system=("tgi_batch_current_size", "tgi_queue_size"),
        queued="tgi_queue_size",
    ),
    Program(
        "Dynamo",
        "dynamo_frontend_input_sequence_tokens",
        "dynamo_frontend_output_sequence_tokens",
        "model",
        "dynamo_",
        in_system=("dynamo_frontend_inflight_requests",),
        queued="dynamo_frontend_queued_requests",
        gaps=("dynamo_frontend_inter_token_latency_seconds",),
        ttft="dynamo_frontend_time_to_first_token_seconds",
    ),
    Program(
        "Dynamo",
        "nv_llm_http_service_input_sequence_tokens",
        "nv_llm_http_service_output_sequence_tokens",
        "model",
        "nv_llm_",
        in_system=("nv_llm_http_service_inflight_requests",),
        gaps=("nv_llm_http_service_inter_token_latency_seconds",),
        ttft="nv_llm_http_service_time_to_first_token_seconds",
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
