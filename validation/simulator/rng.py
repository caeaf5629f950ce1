"""Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).

A number is a function of (seed, replication, request, purpose). Policies therefore see the same
arrivals and lengths, and results depend neither on the number of threads nor on the order of work.
"""

from __future__ import annotations

import numpy as np

from validation.simulator.compiling import called_inlined

_MASK = np.uint64(0xFFFFFFFF)
_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_SHIFT_32, _SHIFT_21, _SHIFT_11 = np.uint64(32), np.uint64(21), np.uint64(11)

PURPOSE_ARRIVAL = np.uint64(0)
"""Inter-arrival time and class of a request."""


@called_inlined
def philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Ten rounds of Philox4x32 on four 32-bit counters and two 32-bit keys, all held in uint64."""
    for _ in range(10):
        product_0 = _MULTIPLIER_0 * c0
        product_1 = _MULTIPLIER_1 * c2
        c0 = (product_1 >> _SHIFT_32) ^ c1 ^ k0
        c1 = product_1 & _MASK
        c2 = (product_0 >> _SHIFT_32) ^ c3 ^ k1
        c3 = product_0 & _MASK
        k0 = (k0 + _WEYL_0) & _MASK
        k1 = (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


@called_inlined
def two_uniforms(seed, replication, request, purpose):  # type: ignore[no-untyped-def]
    """Two independent uniforms on (0, 1], 53 bits each."""
    seed, request = np.uint64(seed), np.uint64(request)
    w0, w1, w2, w3 = philox(
        request & _MASK,
        request >> _SHIFT_32,
        np.uint64(replication) & _MASK,
        purpose,
        seed & _MASK,
        seed >> _SHIFT_32,
    )
    scale = 1.0 / 9007199254740992.0  # 2^-53
    first = (np.float64((w0 << _SHIFT_21) | (w1 >> _SHIFT_11)) + 0.5) * scale
    second = (np.float64((w2 << _SHIFT_21) | (w3 >> _SHIFT_11)) + 0.5) * scale
    return first, second
