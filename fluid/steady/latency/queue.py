"""Time to the end of prefill behind a queue of prompt tokens (THEORY 9.4, 9.5).

An arrival at share u of an iteration finds V tokens ahead: those left over and those that came
since. With r tokens of room in a full iteration its own prompt ends in the k-th one after,
k = ⌈(V + l)/r⌉; before lie the rest of the present iteration and k − 1 full ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from fluid.steady.latency.chunk_kernels import (
    add_full_masses,
    full_seconds,
    open_first_laws,
    open_seconds_each,
    own_first_seconds,
)
from fluid.steady.latency.chunked import Chain
from fluid.steady.latency.solved import Cdfs
from fluid.steady.latency.waits import after_uniform

Floats = NDArray[np.float64]

_MOMENTS = 4
MOMENT_SHARES, MOMENT_WEIGHTS = np.polynomial.legendre.leggauss(_MOMENTS)
MOMENT_SHARES, MOMENT_WEIGHTS = (MOMENT_SHARES + 1) / 2, MOMENT_WEIGHTS / 2
"""Gauss's rule for the moment of arrival within its iteration."""

_LATER_ROUNDS = (2, 3, 4)
_GROUPS = 8
_LONGEST_CLASSES = 8
"""Classes with a law of their own; others are moved to their means from the nearest prompt's."""

_POINTS = 1000


@dataclass(frozen=True)
class Ahead:
    """Law of the tokens ahead of an arrival after so large a share of its iteration.

    Attributes:
        share: u.
        parts: For several kinds of states the time of that iteration, the mass by lattice point,
            and P(more than so many tokens come in the rest of it).
    """

    share: float
    parts: tuple[tuple[float, Floats, Floats], ...]


@dataclass(frozen=True)
class Queue:
    """Waiting for the budget, from a chain in balance with mean iteration time μ."""

    chain: Chain
    mean_s: float

    @cached_property
    def palm(self) -> Floats:
        """Law of the state that an arrival sees, shape (m,)."""
        mass = self.chain.law * self.chain.seconds
        return np.asarray(mass / mass.sum())

    @property
    def _opened(self) -> int:
        return self.chain.states.open_count

    @cached_property
    def full(self) -> tuple[float, float, float]:
        """Decodes and KV of a typical full iteration, and its seconds."""
        decodes, kv = self.chain.mean_decodes
        mass = self.chain.law[self._opened :]
        b, k = float(self.palm @ decodes), float(self.palm @ kv)
        if mass.sum() > 1e-12:
            b = float(mass @ decodes[self._opened :] / mass.sum())
            k = float(mass @ kv[self._opened :] / mass.sum())
        return b, k, float(full_seconds(self.chain.budget, self.chain.costs, b, k))

    @property
    def room(self) -> float:
        """Prompt tokens in a full iteration."""
        return self.chain.budget.tokens - self.full[0]

    @property
    def full_share(self) -> float:
        """Of arrivals that find tokens left over."""
        return float(self.palm[self._opened :].sum())

    @cached_property
    def full_s(self) -> float:
        """Mean time of the iteration in which these arrive."""
        if self.full_share < 1e-12:
            return self.full[2]
        mass = self.palm[self._opened :]
        return float(mass @ self.chain.seconds[self._opened :] / mass.sum())

    @cached_property
    def tokens(self) -> Floats:
        """Lattice of tokens ahead, long enough for the longest leftover."""
        lattice, step = self.chain.lattice, self.chain.budget.step
        longest = self.chain.states.lefts.at[-1] if self.full_share > 1e-12 else 0.0
        most = longest + lattice.values[-1] + self.chain.load.prompts.max()
        return np.asarray(step * np.arange(int(most / step) + 2), dtype=float)

    @cached_property
    def ahead(self) -> tuple[Ahead, ...]:
        """The tokens ahead at a few moments of an iteration."""
        size = int(next_fast_len(2 * len(self.tokens), real=True))
        exponent = self.chain.lattice.exponent(size)
        left_wave = self._left_wave(size)
        groups = self._open_groups()
        times = np.array([one for one, _ in groups])
        if left_wave is not None:
            times = np.append(times, self.full_s)
        found = []
        for share in MOMENT_SHARES:
            laws = self.chain.lattice.laws(share * times)
            behind = np.cumsum(self.chain.lattice.laws((1 - share) * times), axis=1)
            masses = np.zeros((len(times), len(self.tokens)))
            kept = min(laws.shape[1], masses.shape[1])
            for index, (_, mass) in enumerate(groups):
                masses[index, :kept] = mass * laws[index, :kept]
            if left_wave is not None:
                law = irfft(left_wave * np.exp(share * self.full_s * exponent), size)
                masses[-1] = np.maximum(law[: len(self.tokens)], 0.0)
            beyond = np.maximum(1 - behind, 0.0)
            parts = zip(times.tolist(), masses, beyond, strict=True)
            found.append(Ahead(float(share), tuple(parts)))
        return tuple(found)

    def _left_wave(self, size: int) -> NDArray[np.complex128] | None:
        if self.full_share < 1e-12:
            return None
        series = np.zeros(size)
        place = self.chain.states.left[self._opened :] / self.chain.budget.step
        low = place.astype(np.int64)
        mass = self.palm[self._opened :]
        np.add.at(series, low, mass * (1 - (place - low)))
        np.add.at(series, low + 1, mass * (place - low))
        return np.asarray(rfft(series))

    def _open_groups(self) -> list[tuple[float, float]]:
        """States with nothing left over in a few groups: mean time and mass of each."""
        mass = self.palm[: self._opened]
        total = float(mass.sum())
        if total <= 0:
            return []
        group = np.minimum((np.cumsum(mass) / total * _GROUPS).astype(np.int64), _GROUPS - 1)
        found = []
        for one in np.unique(group):
            inside = mass[group == one]
            if inside.sum() > 0:
                seconds = self.chain.seconds[: self._opened][group == one]
                found.append((float(inside @ seconds / inside.sum()), float(inside.sum())))
        return found

    @cached_property
    def mean_law(self) -> Floats:
        """Law of the tokens ahead over the whole iteration."""
        law: Floats = np.zeros(len(self.tokens))
        for weight, one in zip(MOMENT_WEIGHTS, self.ahead, strict=True):
            for _, mass, _ in one.parts:
                law += weight * mass
        return np.asarray(law / law.sum())

    @cached_property
    def _last_seconds(self) -> tuple[Floats, Floats]:
        """Mean time of the iteration that ends a prompt in round 2, 3, 4 …, by tokens up to it.

        Others have come behind meanwhile and fill it up.
        """
        chain, room = self.chain, self.room
        b, k, full_s = self.full
        grid = np.linspace(0, room, 33)
        waits = np.array([(one - 1) * full_s + self.mean_s / 2 for one in _LATER_ROUNDS])
        work = np.minimum(grid[:, None] + chain.lattice.values, room)
        seconds = open_seconds_each(chain.budget, chain.costs, b, k, work.ravel())
        seconds = seconds.reshape(work.shape)
        return grid, chain.lattice.laws(waits) @ seconds.T

    def rounds(self, prompt: float) -> tuple[Floats, Floats]:
        """Iterations that end the prompt, and the mean time of the last, by tokens ahead."""
        total = self.tokens + prompt
        count = np.maximum(np.ceil(total / self.room - 1e-9), 1.0)
        into_last = total - (count - 1) * self.room
        grid, seconds = self._last_seconds
        last = np.full(len(total), self.full[2])
        for index, one in enumerate(_LATER_ROUNDS):
            here = count >= one if one == _LATER_ROUNDS[-1] else count == one
            last[here] = np.interp(into_last[here], grid, seconds[index])
        return count, last

    def mean_first_stage_s(self, fitting_s: Floats) -> Floats:
        """Mean time from arrival to the end of prefill of each class.

        Args:
            fitting_s: Seconds apart from f of a prompt that fits into the budget, shape (m,).
        """
        chain = self.chain
        first_s = own_first_seconds(
            self.palm,
            chain.states.left,
            chain.arrivals,
            chain.decoders,
            chain.load.prompts,
            fitting_s,
            chain.budget,
            chain.costs,
        )
        full_s = self.full[2]
        half_s = float(self.palm @ chain.seconds) / 2
        found = []
        for prompt, first in zip(chain.load.prompts, first_s, strict=True):
            count, last = self.rounds(prompt)
            more_s = np.where(count >= 2, (count - 2) * full_s + last, 0.0)
            found.append(half_s + first + float(self.mean_law @ more_s))
        return np.array(found)

    def laws(self, fitting_s: Floats) -> tuple[Cdfs, NDArray[np.int64]]:
        """Laws of the time to the end of prefill for some prompts, and the row of each class."""
        prompts = self.chain.load.prompts
        chosen = np.unique(prompts)
        if len(chosen) > _LONGEST_CLASSES:
            chosen = np.unique(
                np.quantile(
                    prompts, np.linspace(0, 1, _LONGEST_CLASSES), method="closest_observation"
                )
            )
        row = np.abs(np.log1p(prompts)[:, None] - np.log1p(chosen)).argmin(axis=1)
        full_s = self.full[2]
        heavy = int(np.searchsorted(np.cumsum(self.mean_law), 1 - 1e-5))
        most = float(self.tokens[min(heavy, len(self.tokens) - 1)] + prompts.max())
        rounds = most // self.room + 3
        dx = full_s * rounds / _POINTS
        below = []
        for prompt in chosen:
            own_s = float(fitting_s[np.flatnonzero(prompts == prompt)[0]])
            below.append(self._below(float(prompt), own_s, dx))
        return Cdfs(dx * np.arange(float(_POINTS)), np.array(below)), row

    def _below(self, prompt: float, fitting_s: float, dx: float) -> Floats:
        chain = self.chain
        masses = open_first_laws(
            self.palm,
            chain.states.left,
            chain.arrivals,
            chain.decoders,
            prompt,
            fitting_s,
            _POINTS,
            dx,
            chain.budget,
            chain.costs,
        )
        below = after_uniform(masses, chain.seconds / dx)
        below = below + np.cumsum(self._full_masses(prompt, dx))
        return np.asarray(below / max(below[-1], 1e-300))

    def _full_masses(self, prompt: float, dx: float) -> Floats:
        """Prompts that end in a full iteration, or only in a later one."""
        full_s = self.full[2]
        count, last = self.rounds(prompt)
        wait = np.where(count < 2, full_s, (count - 1) * full_s + last) / dx
        found = np.zeros(_POINTS)
        for weight, one in zip(MOMENT_WEIGHTS, self.ahead, strict=True):
            for time, mass, beyond in one.parts:
                add_full_masses(
                    found,
                    weight * mass,
                    (1 - one.share) * time / dx + wait,
                    (self.room - self.tokens - prompt) / self.chain.budget.step,
                    beyond,
                )
        return found
