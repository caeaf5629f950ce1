"""What the paper reports, arXiv 2504.11320v4: data, never results."""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "arXiv 2504.11320v4"


@dataclass(frozen=True)
class Latency:
    """Mean latency over runs with its standard deviation, seconds; None where none is given."""

    mean_s: float
    sd_s: float | None = None

    def __str__(self) -> str:
        return f"{self.mean_s:g}" + (f" ± {self.sd_s:g}" if self.sd_s is not None else "")


LARGEST_RATES_PER_S: dict[str, dict[str, float]] = {
    "single": {"WAIT": 23, "Sarathi": 22, "vLLM": 19},
    "two classes": {"WAIT": 22, "Sarathi": 21, "vLLM": 18},
}
"""λ*: the largest rate at which latency stays controlled and completions track arrivals."""

TWENTY_RUNS: dict[tuple[str, float], dict[str, Latency]] = {
    ("single", 22.0): {
        "vLLM": Latency(18.23, 2.74),
        "Sarathi": Latency(1.85, 0.33),
        "WAIT": Latency(1.03, 0.04),
    },
    ("single", 23.0): {
        "vLLM": Latency(26.78, 3.35),
        "Sarathi": Latency(5.08, 1.72),
        "WAIT": Latency(1.29, 0.10),
    },
    ("two classes", 22.0): {
        "vLLM": Latency(56.70, 2.22),
        "Sarathi": Latency(4.06, 1.66),
        "WAIT": Latency(2.36, 0.57),
    },
    ("two classes", 23.0): {
        "vLLM": Latency(80.25, 2.37),
        "Sarathi": Latency(8.41, 1.74),
        "WAIT": Latency(5.66, 1.88),
    },
}

LONG_DECODE: dict[float, dict[str, Latency]] = {
    4.0: {"Sarathi": Latency(30.2), "WAIT": Latency(26.4)},
    4.5: {"vLLM": Latency(53.8), "Sarathi": Latency(41.7), "WAIT": Latency(32.3)},
}
"""512/1000 by rate."""

LONG_DECODE_RESTARTS: dict[float, dict[str, float]] = {4.0: {"Sarathi": 0.0288, "WAIT": 0.0}}
"""Restarts per request."""

DECODE_ONLY_SAVING = (0.45, 0.55)
"""By how much WAIT's latency is below vLLM's, decode-only 630/20 at 100–500/s."""

KV_BYTES_PER_TOKEN = 2**19
"""Llama-2-7B in 16 bits: 0.5 MiB (THEORY 6.2)."""

A100_BYTES_PER_S = 2.039e12
"""Memory bandwidth of an A100-80GB SXM, NVIDIA's data sheet."""
