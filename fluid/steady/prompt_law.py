"""How many prompt tokens arrive in an intake: the compound Poisson law of THEORY 2.5."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PromptLaw:
    """Law of the prompt tokens of an intake on a lattice of so many points.

    They are compound Poisson with transform exp(y·Σ λ_j (z^l_j − 1)); its coefficients come from
    an inverse FFT on a circle of radius < 1, which damps the aliased terms beyond the lattice to
    1e-14.

    Attributes:
        prompts: Tokens at the points.
        exponent: Σ λ_j (z^l_j − 1) on the circle.
        undamp: What undoes the circle's radius, shape (points,).
        size: Of the transform.
    """

    prompts: NDArray[np.int64]
    exponent: NDArray[np.complex128]
    undamp: NDArray[np.float64]
    size: int

    @classmethod
    def up_to(
        cls, most_tokens: int, lengths: NDArray[np.int64], rates: NDArray[np.float64]
    ) -> PromptLaw:
        """On the multiples of the greatest common divisor of the lengths, shape (m,)."""
        step = int(np.gcd.reduce(lengths)) or 1
        prompts = step * np.arange(most_tokens // step + 1)
        size = 1 << (4 * len(prompts) - 1).bit_length()
        radius = 10.0 ** (-14 / size)
        series = np.zeros(size)
        np.add.at(series, (lengths // step) % size, rates * radius ** (lengths / step))
        exponent = np.fft.rfft(series) - rates.sum()
        return cls(prompts, exponent, radius ** (-prompts / step), size)

    def law(self, intake_s: float) -> NDArray[np.float64]:
        """Probability of each number of prompt tokens."""
        law = np.fft.irfft(np.exp(intake_s * self.exponent), self.size)
        return np.asarray(law[: len(self.prompts)] * self.undamp)
