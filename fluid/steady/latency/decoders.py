"""Law of the decoders B and of the KV K that they read, given the iteration before (THEORY 9.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from fluid.steady.latency.chain import HERMITE, HERMITE_WEIGHTS
from fluid.steady.latency.load import Load
from fluid.steady.latency.slow import Slow

Floats = NDArray[np.float64]

FEW = 6.0
"""Below this mean the law lives on whole numbers."""
_COUNTS = 32


@dataclass(frozen=True)
class Decoders:
    """A discrete law for each node, shape (m, q) each."""

    requests: Floats
    kv_tokens: Floats
    weights: Floats


def given_time(load: Load, slow: Slow, seconds: Floats, mean_s: float) -> Decoders:
    """B and K after an iteration of these seconds: a straight line for the mean.

    Args:
        seconds: Nodes, shape (m,).
        mean_s: The mean iteration time that B's mean is taken at (THEORY 9.1).
    """
    found, spread = slow.moments, slow.variance_s2
    on_time, kv_on_time = slow.on_time
    rest = max(found.decodes_var - on_time**2 * spread, 0.0)
    kv_on_decodes = (found.decodes_kv - on_time * kv_on_time * spread) / rest if rest > 0 else 0.0
    deviation = seconds - mean_s
    mean = np.maximum(mean_s * load.decodes_per_s + on_time * deviation, 0.0)
    kv = np.maximum(mean_s * load.kv_read_per_s + kv_on_time * deviation, 0.0)
    ratio = rest / max(mean_s * load.decodes_per_s, 1e-300)
    return spread_around(mean, kv, ratio, kv_on_decodes)


def spread_around(mean: Floats, kv: Floats, ratio: float, kv_per_decode: float) -> Decoders:
    """Laws with these means and the variance ratio·mean; K follows B on a line."""
    width = _COUNTS if mean.min() < FEW else len(HERMITE)
    requests = np.zeros((len(mean), width))
    weights = np.zeros((len(mean), width))
    few = mean < FEW
    if few.any():
        counts = np.arange(float(_COUNTS))
        law = count_law(mean[few], ratio, counts)
        requests[few], weights[few] = counts, law / law.sum(axis=1, keepdims=True)
    sd = np.sqrt(ratio * mean[~few])
    weights[~few, : len(HERMITE)] = HERMITE_WEIGHTS
    requests[~few, : len(HERMITE)] = mean[~few, None] + sd[:, None] * HERMITE
    requests = np.maximum(requests, 0.0)
    kv_tokens = np.maximum(kv[:, None] + kv_per_decode * (requests - mean[:, None]), 0.0)
    return Decoders(requests, np.where(requests > 0, kv_tokens, 0.0), weights)


def count_law(mean: Floats, ratio: float, counts: Floats) -> Floats:
    """Negative binomial with variance ratio·mean, Poisson for a ratio of 1 or less."""
    mean = np.maximum(mean, 1e-12)[:, None]
    if ratio <= 1 + 1e-6:
        return np.asarray(np.exp(xlogy(counts, mean) - mean - gammaln(counts + 1)))
    excess = ratio - 1
    size = mean / excess
    log = gammaln(counts + size) - gammaln(size) - gammaln(counts + 1)
    log = log + counts * math.log(excess / ratio) - size * math.log(ratio)
    return np.asarray(np.exp(log))


def nobody(mean: Floats, ratio: float) -> Floats:
    """P(B = 0) under that law."""
    if ratio <= 1 + 1e-6:
        return np.exp(-mean)
    return np.asarray(np.exp(-mean / (ratio - 1) * math.log(ratio)))
