"""Walks along the chains of THEORY 9 and sums of their iteration times, compiled with numba."""

from __future__ import annotations

import numpy as np

from fluid.compiled import compiled

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"


@compiled(nogil=True, error_model="numpy", fastmath=True)
def sum_waves(step, starts, turn_real, turn_imag, counts):
    """E[e^{iω(τ_1 + … + τ_N)}] from each law of τ_0, for each N of `counts`, which increase.

    Args:
        step: Q, shape (m, m); starts: laws of the node of τ_0, shape (k, m).
        turn_real, turn_imag: e^{iωt} of each node, shape (m, F).

    Returns:
        Real and imaginary part, shape (len(counts), k, F) each.
    """
    m, waves = turn_real.shape
    real = np.ones((m, waves))
    imag = np.zeros((m, waves))
    kept_real = np.zeros((counts.size, starts.shape[0], waves))
    kept_imag = np.zeros((counts.size, starts.shape[0], waves))
    turned_real = np.empty((m, waves))
    turned_imag = np.empty((m, waves))
    done = 0
    for index in range(counts.size):
        while done < counts[index]:
            for k in range(m):
                for w in range(waves):
                    a, b = real[k, w], imag[k, w]
                    turned_real[k, w] = a * turn_real[k, w] - b * turn_imag[k, w]
                    turned_imag[k, w] = a * turn_imag[k, w] + b * turn_real[k, w]
            add_products(step, turned_real, turned_imag, real, imag)
            done += 1
        add_products(starts, real, imag, kept_real[index], kept_imag[index])
    return kept_real, kept_imag


@compiled(from_python=False, nogil=True, error_model="numpy", fastmath=True)
def add_products(weights, real, imag, to_real, to_imag):
    """Set `to` to the weighted rows; weights of shape (k, m), rows of shape (m, F)."""
    to_real[:] = 0.0
    to_imag[:] = 0.0
    for i in range(weights.shape[0]):
        for k in range(weights.shape[1]):
            mass = weights[i, k]
            if mass > 1e-9:
                for w in range(real.shape[1]):
                    to_real[i, w] += mass * real[k, w]
                    to_imag[i, w] += mass * imag[k, w]


@compiled(nogil=True, error_model="numpy")
def following(step, values):
    """E[value of the next state | state]: Q·values."""
    found = np.zeros(values.size)
    for i in range(values.size):
        for k in range(values.size):
            found[i] += step[i, k] * values[k]
    return found


@compiled(from_python=False, nogil=True, error_model="numpy")
def preceded(step, mass):
    """Mass one iteration later: mass·Q."""
    found = np.zeros(mass.size)
    for i in range(mass.size):
        if mass[i] != 0.0:
            for k in range(mass.size):
                found[k] += mass[i] * step[i, k]
    return found


@compiled(nogil=True, error_model="numpy")
def relaxation(law, step, seconds, most, negligible):
    """Integrated autocorrelation Σ_s γ_s/γ_0 over s ≥ 0 of the chain's iteration time."""
    mean_s = (law * seconds).sum()
    away = seconds - mean_s
    later = away.copy()
    variance = (law * away * away).sum()
    total = variance
    for _ in range(most):
        later = following(step, later)
        here = (law * away * later).sum()
        total += here
        if abs(here) < negligible * variance:
            break
    return total / max(variance, 1e-300)


@compiled(nogil=True, error_model="numpy")
def worth_by_age(mass, step, worth):
    """Σ_age worth_age·(mass·Q^(age − 1)), ages from 1 on; shape (kinds, m).

    Args:
        worth: Shape (kinds, ages).
    """
    found = np.zeros((worth.shape[0], mass.size))
    for age in range(worth.shape[1]):
        for kind in range(worth.shape[0]):
            found[kind] += worth[kind, age] * mass
        mass = preceded(step, mass)
    return found


@compiled(nogil=True, error_model="numpy")
def seconds_ahead(starts, step, away, early, negligible):
    """E[value after s iterations] from each law, s = 1 …; 0 once it has died out.

    Args:
        starts: Shape (k, m), possibly signed.
        away: Values with mean 0 in balance, shape (m,).
        early: Shape (k, S), filled in place.
    """
    still = 0
    for s in range(early.shape[1]):
        away = following(step, away)
        most = 0.0
        for j in range(starts.shape[0]):
            for i in range(away.size):
                early[j, s] += starts[j, i] * away[i]
            most = max(most, abs(early[j, s]))
        still = still + 1 if most < negligible else 0
        if still == 20:
            break


@compiled(nogil=True, error_model="numpy")
def blurred(masses, width):
    """P(value + U ≤ x) summed over rows, U uniform on (0, width of the row) points; shape (n,)."""
    rows, points = masses.shape
    found = np.zeros(points)
    area = np.zeros(points)
    for i in range(rows):
        below = masses[i, 0]
        for x in range(1, points):
            area[x] = area[x - 1] + below + masses[i, x] / 2
            below += masses[i, x]
        if below == 0.0:
            continue
        for x in range(points):
            back = x - width[i]
            if back < 0.0:
                found[x] += area[x] / width[i]
                continue
            low = min(int(back), points - 2)
            share = min(back - low, 1.0)
            found[x] += (area[x] - area[low] * (1.0 - share) - area[low + 1] * share) / width[i]
    return found
