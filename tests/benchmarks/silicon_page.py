"""The page of the silicon benchmark, from its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tests.benchmarks.silicon import Row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "silicon.md"
MARK = "<!-- rows from here on are written by tests.benchmarks.silicon -->\n"
DENSE = ("Llama-3.1-70B", "Qwen3-32B", "Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct-FP8")
Floats = NDArray[np.float64]
Errors = Callable[[Sequence["Row"]], Floats]


def is_suspect(row: Row) -> bool:
    """Groups that look contaminated: shown, and left out of the promise."""
    return row.model.endswith("8B-Instruct-FP8") or (
        row.model == "Qwen/Qwen3-32B" and row.engine == "vllm" and row.numbers == "fp8"
    )


def is_promised(row: Row) -> bool:
    """Dense models under vLLM, without suspect groups."""
    return row.engine == "vllm" and row.model.split("/")[1] in DENSE and not is_suspect(row)


def tpot(rows: Sequence[Row]) -> Floats:
    """Relative errors of TPOT."""
    return np.array([one.tpot_s / one.measured_tpot_s - 1 for one in rows])


def ttft(rows: Sequence[Row]) -> Floats:
    """Relative errors of TTFT."""
    return np.array([one.ttft_s / one.measured_ttft_s - 1 for one in rows])


def throughput(rows: Sequence[Row]) -> Floats:
    """Relative errors of requests per second by Little's law."""
    return np.array(
        [
            _latency(one, one.measured_ttft_s, one.measured_tpot_s)
            / _latency(one, one.ttft_s, one.tpot_s)
            - 1
            for one in rows
        ]
    )


def peer_tpot(rows: Sequence[Row]) -> Floats:
    """The peer's errors of TPOT."""
    return np.array([one.peer_tpot_s / one.measured_tpot_s - 1 for one in rows])


def peer_ttft(rows: Sequence[Row]) -> Floats:
    """The peer's errors of TTFT."""
    return np.array([one.peer_ttft_s / one.measured_ttft_s - 1 for one in rows])


def _latency(row: Row, ttft_s: float, tpot_s: float) -> float:
    return ttft_s + tpot_s * (row.output - 1)


def write_page(rows: Sequence[Row]) -> None:
    """Everything below the mark of docs/silicon.md."""
    text = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    promised = [one for one in rows if is_promised(one)]
    parts = [
        "## Dense models under vLLM\n",
        _table([("all without suspect groups", promised)], [*_ALL]),
        "## Every group\n",
        "Mean signed error in brackets.\n",
        _table(sorted(_groups(rows).items()), [*_ALL]),
    ]
    PAGE.write_text(text + MARK + "\n" + "\n".join(parts), encoding="utf-8")
    print(_table([("promised", promised)], [*_ALL]))


_ALL: dict[str, Errors] = {
    "TPOT": tpot,
    "requests/s": throughput,
    "TTFT": ttft,
    "TPOT, aiconfigurator": peer_tpot,
    "TTFT, aiconfigurator": peer_ttft,
}


def _groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for one in rows:
        mark = " (suspect)" if is_suspect(one) else ""
        numbers = one.numbers or "bf16"
        name = f"{one.engine}, {one.model.split('/')[1]} {numbers}, {one.gpu}{mark}"
        found.setdefault(name, []).append(one)
    return found


def _table(named: Sequence[tuple[str, Sequence[Row]]], columns: list[str]) -> str:
    head = ["group", "rows", *columns]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, rows in named:
        cells = [name, str(len(rows)), *(_cell(_ALL[one](rows)) for one in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(errors: Floats) -> str:
    """Mean and 90th percentile of the size, mean with its sign; in percent."""
    known = errors[np.isfinite(errors)]
    if not len(known):
        return "–"
    size = 100 * np.abs(known)
    return f"{size.mean():.0f} %, p90 {np.quantile(size, 0.9):.0f} % ({100 * known.mean():+.0f} %)"
