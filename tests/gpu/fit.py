"""From the sweep to a server file: its error on rows that took no part, and the floor below it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fluid.errors import InputError
from tests.gpu.card import ceilings
from tests.gpu.result import FAILED, Aim, Result, Row, Table
from tests.gpu.settings import Settings
from tests.gpu.sweep import EAGER, GRAPHS, REAL, TOY, Sizes, table_path
from validation.measure.calibrate import Calibration, calibrate
from validation.measure.composition import LINEAR_TERMS
from validation.measure.floor import DeviceLimits, floor_report

HELD_OUT_ERROR = 0.03
"""The aim, in the mean over rows."""

BLOCK_TOKENS = 16

MODES = (GRAPHS, EAGER)
"""In the order in which the closed loop would rather have them."""


def measure(settings: Settings) -> Iterator[Result]:
    """A server for each mode of the sweep that there is."""
    wanted = [mode for mode in MODES if table_path(settings.out, mode).is_file()]
    if not wanted:
        raise InputError("sweep", "no rows", "the rows of --only sweep", str(settings.out))
    for mode in MODES:
        server_path(settings.out, mode).unlink(missing_ok=True)
    ground = Ground(ceilings(settings), TOY if settings.toy else REAL)
    found: dict[str, Calibration] = {}
    refused: list[str] = []
    for mode in settings.while_time(wanted):
        try:
            found[mode] = calibrate(
                table_path(settings.out, mode),
                name=f"gpu-check-{mode}",
                block_tokens=BLOCK_TOKENS,
            )
        except InputError as error:
            refused.append(f"{mode}: {error}")
            continue
        found[mode].write(server_path(settings.out, mode))
        yield summary(found, ground, settings)
    result = summary(found, ground, settings) if found else Result("fit")
    if refused:
        yield replace(result, status=FAILED, why="; ".join(refused))
    else:
        yield result.ended(len(found), len(wanted), "fits")


@dataclass(frozen=True)
class Ground:
    """What fits are held against: the ceilings of the card, and the sizes of the swept model."""

    limits: DeviceLimits
    sizes: Sizes


def server_path(folder: Path, mode: str) -> Path:
    """Where the server of a mode of the sweep lies."""
    return folder / f"server-{mode}.json"


def summary(found: dict[str, Calibration], ground: Ground, settings: Settings) -> Result:
    """Errors, coefficients and floors of every fit; the aim is of the first mode, which serves."""
    served = next(iter(found.values())).estimate.held_out.mean
    fits = tuple(_fit_row(mode, one) for mode, one in found.items())
    floors = tuple(line for mode, one in found.items() for line in _floor_rows(mode, one, ground))
    aim = Aim(
        "held-out error of the fit, mean",
        f"≤ {HELD_OUT_ERROR:.0%}",
        f"{served:.1%}",
        settings.met(served <= HELD_OUT_ERROR),
    )
    tables = (Table("Fits", fits), Table("Measured ÷ floor", floors))
    return Result("fit", tables=tables, aims=(aim,))


def _fit_row(mode: str, found: Calibration) -> Row:
    tau = found.iteration_time
    return {
        "mode": mode,
        "rows": len(found.estimate.measurements),
        "held_out_mean": found.estimate.held_out.mean,
        "held_out_p95": found.estimate.held_out.p95,
        "in_sample_mean": found.estimate.in_sample.mean,
        "knots": len(tau.tokens_knots),
        **{name: getattr(tau, name) for name in LINEAR_TERMS},
    }


def _floor_rows(mode: str, found: Calibration, ground: Ground) -> list[Row]:
    sizes = ground.sizes
    report = floor_report(found.server, sizes.shape.name, ground.limits, sizes.dtype.itemsize)
    return [
        {
            "mode": mode,
            "coefficient": line.name,
            "measured_s": line.measured_s,
            "floor_s": line.floor_s,
            "ratio": line.ratio,
        }
        for line in report.lines
    ]
