"""Philox against the known answers of its authors (Random123, kat_vectors)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from validation.simulator.rng import PURPOSE_ARRIVAL, philox, two_uniforms

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter: tuple[int], key: tuple[int], answer: tuple[int]) -> None:
    words = philox(*(np.uint64(word) for word in (*counter, *key)))
    assert tuple(int(word) for word in words) == answer


def test_uniforms_are_uniform_and_independent() -> None:
    draws = np.array([two_uniforms(7, 3, request, PURPOSE_ARRIVAL) for request in range(4000)])
    for column in draws.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    assert abs(stats.pearsonr(*draws.T).statistic) < 4 / np.sqrt(len(draws))


def test_every_coordinate_matters() -> None:
    base = two_uniforms(1, 2, 3, PURPOSE_ARRIVAL)
    others = [
        two_uniforms(2, 2, 3, PURPOSE_ARRIVAL),
        two_uniforms(1 + (1 << 32), 2, 3, PURPOSE_ARRIVAL),
        two_uniforms(1, 3, 3, PURPOSE_ARRIVAL),
        two_uniforms(1, 2, 4, PURPOSE_ARRIVAL),
        two_uniforms(1, 2, 3 + (1 << 32), PURPOSE_ARRIVAL),
        two_uniforms(1, 2, 3, np.uint64(1)),
    ]
    assert len({base, *others}) == 1 + len(others)
