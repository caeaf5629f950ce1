"""A result of each kind that measuring, calibrating and the theorem bench answer with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fluid.result import Result
from fluid.server import load_server
from fluidwait.installation import Device, Extra, Installation, Package
from tests.support.builders import workload
from tests.support.model_configs import CONFIGS
from tests.support.synthetic import AFFINE, measured
from validation.measure.calibrate import calibrate
from validation.measure.design import Composition
from validation.measure.floor import device_limits, floor_report
from validation.measure.record import RunRecord
from validation.servers.estimate import estimate_server
from validation.theorems.bench import Outcome, TheoremReport
from validation.theorems.estimates import at_most, exact, mean, points
from validation.theorems.statement import Effort, Finding, Plot, Policies, Statement

COMMAND = "fluidwait measure --model tiny"


def calibration() -> Result:
    """With figures carried to a load, and without the KV capacity."""
    rows = measured(AFFINE, noise=0.02)
    return calibrate(rows, name="<mine>", workload=workload((6.0, 512, 200)))


def measurement_run() -> Result:
    """Two batches measured, one without memory."""
    pytest.importorskip("torch")
    from validation.measure.run import MeasurementRun
    from validation.measure.timed_batches import TimedBatch, TimedBatches
    from validation.measure.timer import Timing

    rows = (
        TimedBatch(Composition(decodes=4, context=64), Timing(0.01, 1e-4)),
        TimedBatch(Composition(prefills=1, chunk=64), Timing(0.02, 2e-4)),
    )
    timed = TimedBatches(rows, (Composition(decodes=999, context=4096),), interrupted=True)
    record = RunRecord(
        device="a & b", model="tiny", command=COMMAND, date="2026-01-01", versions={"python": "3"}
    )
    return MeasurementRun(timed, 3, record)


def paper_fit() -> Result:
    """Without memory for the run that is extrapolated to."""
    pytest.importorskip("torch")
    from validation.measure.paper_design import PaperFit, fit_two_parameters

    tokens, seconds = np.arange(1.0, 5.0), np.array([1.0, 2.1, 2.9, 4.0])
    fit = fit_two_parameters(tokens, seconds, extrapolated=False)
    return PaperFit(
        model="tiny",
        device="cpu",
        command=COMMAND,
        prompt_tokens=256,
        output_tokens=20,
        batches=(1, 2, 4, 8),
        extrapolated_to=16,
        run_s=tuple(seconds.tolist()),
        decode_iteration_s=tuple(seconds.tolist()),
        whole_runs=fit,
        decode_iterations=fit,
    )


def closed_loop_runs() -> Result:
    """Measured figures beside those of a simulation that did not end."""
    pytest.importorskip("torch")
    from thresholds.limits import Limits
    from validation.measure.batching import Request
    from validation.measure.closed_loop import ClosedLoop, ClosedLoopRuns, Figures, NamedRun

    loop = ClosedLoop(
        Limits(watermark_fraction=0.01),
        10.0,
        (Request(0.0, [1], 5),),
        (1, 0),
        measured=Figures(0.512345, 0.012345, 0.112345, 9.87654),
        simulated=Figures(None, None, None, 9.0),
    )
    runs = (NamedRun("table", 10.0, loop), NamedRun("greedy", 12_345.0, loop))
    return ClosedLoopRuns("tiny", "cpu", "mine", COMMAND, runs)


def theorem_report() -> Result:
    """A statement that holds and one that fails, with figures that are infinite."""

    def experiment(effort: Effort, policies: Policies) -> Finding:
        found = mean([0.9, 1.1, 1.0])
        return Finding(
            (at_most("a <b> figure", exact(1.0), effort.seed), at_most("none", exact(np.inf), 1.0)),
            Plot("x <b>", "y", (points("measured", np.ones(1), [found]),), log_x=True),
        )

    statements = [
        Statement(key, "3.3", "a claim", "nothing", experiment) for key in ("one", "another")
    ]
    effort = Effort("quick", seed=2)
    outcomes = [Outcome(one, one.run(effort, {}), 0.5) for one in statements]
    return TheoremReport(effort, tuple(outcomes))


def broken_installation() -> Result:
    """A required package that is missing, and an extra that is."""
    return Installation(
        version="1.0",
        python="3.11",
        platform="Linux",
        packages=(Package("numpy", ">=99", "2.0", False), Package("absent", ">=1", None, False)),
        devices=(Device("cpu", "2 cores", None), Device("cuda", "", "no driver <libcuda>")),
        extras=(Extra("torch", "measuring", "pip install 'fluidwait[torch]'", ("torch",)),),
    )


MEASURE_RESULTS: dict[str, Callable[[], Result]] = {
    "calibration": calibration,
    "estimated-server": lambda: estimate_server(
        CONFIGS / "llama-3.1-8b", gpu="l4", method="roofline", name="<mine>"
    ),
    "measurement-run": measurement_run,
    "paper-fit": paper_fit,
    "closed-loop-runs": closed_loop_runs,
    "floor-report": lambda: floor_report(
        load_server("a100-80gb-llama-2-7b"), "llama-2-7b", device_limits("h200")
    ),
    "theorem-report": theorem_report,
    "installation": broken_installation,
}
