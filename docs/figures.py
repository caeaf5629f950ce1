"""Every picture of README and documentation, drawn into docs/images.

    python docs/figures.py [NAME …]

Without names all of them, in about a minute; ``make figures`` does that. The pictures of
``reproduction.md`` come with that page: ``make reproduce``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fluid.plots.style import save
from fluid.server import Server
from fluid.steady.equilibrium import Equilibrium, equilibrium
from fluid.steady.phase import phase as margins
from fluid.transient.inflow import Burst
from fluid.transient.metastable import Criterion, recovery_map
from fluid.transient.path import Admission, simulate_fluid
from fluid.workload import Workload
from validation.experiments.region import region as all_rates

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
TWO_CLASSES = ROOT / "examples" / "two-class.yaml"
LONG = ROOT / "fluidwait" / "demo.yaml"
GREEDY = Admission(watermark=0.01)
CRITERION = Criterion(horizon_s=600.0, hold_s=120.0)


def demo(path: Path) -> None:
    """What `fluidwait demo` draws: the collapse of greedy admission beside the table."""
    from fluidwait.commands.demo import command

    with tempfile.TemporaryDirectory() as folder:
        command(Path(folder))
        path.write_text((Path(folder) / "replay.svg").read_text("utf-8"), "utf-8")


def region(path: Path) -> None:
    """What `fluidwait region examples/two-class.yaml --server engine-long-decode` draws."""
    found = all_rates(Workload.read(TWO_CLASSES), Server.named("engine-long-decode"))
    save(found.plot, path)


def latency(path: Path) -> None:
    save(_balance().plot, path)


def stages(path: Path) -> None:
    save(lambda: _balance().plot(picture="stages"), path)


def _balance() -> Equilibrium:
    return equilibrium(Workload.read(TWO_CLASSES), Server.named("engine-long-decode"))


def phase(path: Path) -> None:
    """Margin over rate and memory, with the line where the cause changes."""
    found = margins(
        Workload.read(LONG),
        Server.named("paper-long-decode"),
        rate=np.linspace(0.5, 3.5, 31),
        kv_tokens=np.linspace(20_000, 300_000, 29),
    )
    save(found.plot, path)


def generations(path: Path) -> None:
    """Residents by stage while greedy admission recovers from nothing but a burst, or does not."""
    found = simulate_fluid(
        Workload.read(LONG),
        Server.named("paper-long-decode"),
        horizon_s=400.0,
        rule=GREEDY,
        bursts=[Burst(50.0, 150.0)],
        start="equilibrium",
        every=10,
        snapshots_s=list(np.arange(0.0, 400.0, 0.5)),
    )
    save(lambda: found.plot(picture="population"), path)


def recovery(path: Path) -> None:
    """Seconds until greedy admission is back after a burst, by rate and burst."""
    rates, bursts = np.linspace(1.8, 2.7, 10), np.linspace(20, 200, 10)
    server = Server.named("paper-long-decode")
    found = recovery_map(Workload.read(LONG), server, rates, bursts, CRITERION, GREEDY)
    save(found.plot, path)


FIGURES: dict[str, Callable[[Path], None]] = {
    "demo.svg": demo,
    "region.svg": region,
    "latency.svg": latency,
    "stages.svg": stages,
    "phase.svg": phase,
    "generations.svg": generations,
    "recovery.svg": recovery,
}


def main(names: list[str]) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in names or FIGURES:
        FIGURES[name](IMAGES / name)
        print(f"Wrote {IMAGES / name}.")


if __name__ == "__main__":
    main(sys.argv[1:])
