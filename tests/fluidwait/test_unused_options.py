"""An option that would do nothing for what was chosen is refused: exit 2, one line, no work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import Call

SERVER = ("--server", "paper-long-decode")
COMPARE = ("compare", *SERVER, "--policy", "greedy")
SWEEP = ("sweep", *SERVER, "--policy", "greedy", "-o", "rows")
REPLAY, REPORT = ("replay", "TABLE"), ("report", "TABLE")
TAPE = ("--tape", "TAPE")
STAGES = ("--plot", "stages.svg", "--picture", "stages")
ONCE = "nothing beside --tape: a recording runs once"

REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    **{
        f"{command[0]} {option} beside a tape": ((*command, *TAPE, option, value), told)
        for command in (REPLAY, COMPARE, SWEEP)
        for option, value, told in (
            ("--replications", 5, f"--replications: got 5; allowed: {ONCE}"),
            ("--requests", 50, f"--requests: got 50; allowed: {ONCE}"),
            ("--seed", 1, f"--seed: got 1; allowed: {ONCE}"),
            ("--arrivals", "gamma:cv=2", "--arrivals: got 'gamma:cv=2'; allowed: nothing beside"),
        )
    },
    # What is given counts, not what it is: the default is refused as well.
    "replay --replications 20 beside a tape": (
        (*REPLAY, *TAPE, "--replications", 20),
        f"--replications: got 20; allowed: {ONCE}",
    ),
    "sweep --seeds beside a tape": (
        (*SWEEP, *TAPE, "--seeds", 2),
        f"--seeds: got 2; allowed: {ONCE}",
    ),
    "compare --burst beside a tape": (
        (*COMPARE, *TAPE, "--burst", 9),
        "--burst: got 9; allowed: a workload's own arrivals, no tape",
    ),
    **{
        f"{command[0]} with a workload and a tape": (
            (*command, "LOAD", *TAPE),
            "WORKLOAD: got 'both or neither'",
        )
        for command in (COMPARE, SWEEP)
    },
    **{
        f"{command[0]} without workload and tape": (command, "WORKLOAD: got 'both or neither'")
        for command in (COMPARE, SWEEP)
    },
    **{
        f"{command[0]} --workers beside --cluster": (
            (*command, "LOAD", "--cluster", "tcp://127.0.0.1:1", "--workers", 2),
            "--workers: got 2; allowed: a number, where no cluster is given",
        )
        for command in (COMPARE, SWEEP)
    },
    **{
        f"region {option} without a policy": (
            ("region", "LOAD", *SERVER, option, value),
            f"{option}: got {value}; allowed: only with --policy",
        )
        for option, value in (
            ("--mixes", 5),
            ("--replications", 5),
            ("--requests", 500),
            ("--seed", 1),
        )
    },
    **{
        f"equilibrium {option} beside --clients": (
            ("equilibrium", "LOAD", *SERVER, "--clients", 4, option, value),
            f"{option}: got {value!r}; allowed: nothing beside --clients",
        )
        for option, value in (("--rate", 2.0), ("--evictions", 0.01), ("--picture", "phase"))
    },
    "equilibrium --think-s alone": (
        ("equilibrium", "LOAD", *SERVER, "--think-s", 2.0),
        "--think-s: got 2.0; allowed: only with --clients",
    ),
    **{
        f"{command[0]} {' '.join(map(str, options))}": ((*command, *options), told)
        for options, told in (
            (("--think-s", 2.0), "--think-s: got 2.0; allowed: only with --clients"),
            (("--think-law", "exponential"), "--think-law: got 'exponential'; allowed: only with"),
            (("--patience-cv", 0.5), "--patience-cv: got 0.5; allowed: only with --patience-s"),
            (("--clients", 2, "--arrivals", "poisson"), "--arrivals: got 'poisson'; allowed: noth"),
            (("--job", "at-once", "--arrivals", "poisson"), "--arrivals: got 'poisson'; allowed: "),
            (("--job", "later"), "job: got 'later'; allowed: at-once or as-recorded"),
            (("--clients", 2, "--queue-requests", 9), "think_s: got 0; allowed: more than 0"),
        )
        for command in (REPLAY, (*COMPARE, "LOAD"), (*SWEEP, "LOAD"))
    },
    **{
        f"{command[0]} --rates beside --clients": (
            (*command, "LOAD", "--clients", 2, "--rates", "1,2"),
            "--rates: got '1,2'; allowed: nothing beside --clients",
        )
        for command in (COMPARE, SWEEP)
    },
    **{
        f"{command[0]} --outputs beside a tape": (
            (*command, *TAPE, "--outputs", "geometric"),
            "--outputs: got 'geometric'; allowed: nothing beside --tape",
        )
        for command in (REPLAY, COMPARE, SWEEP)
    },
    "replay --rate beside --clients": (
        (*REPLAY, "--clients", 2, "--rate", 1.0),
        "--rate: got 1.0; allowed: nothing beside --clients",
    ),
    "replay --out beside --job": (
        (*REPLAY, "--job", "at-once", "--out", "t.json"),
        "--out: got ",
    ),
    "compare --find-capacity beside --job": (
        (*COMPARE, "LOAD", "--job", "at-once", "--find-capacity"),
        "--find-capacity: got True; allowed: nothing beside",
    ),
    "compare --burst beside --patience-s": (
        (*COMPARE, "LOAD", "--patience-s", 2.0, "--burst", 9),
        "burst: got 9; allowed: nothing beside",
    ),
    "region --policy of one class": (
        ("region", "LOAD", *SERVER, "--policy", "greedy"),
        "classes: got 1; allowed: two classes for simulated boundaries",
    ),
    "region --plot of one class": (
        ("region", "LOAD", *SERVER, "--plot", "region.svg"),
        "classes: got 1; allowed: two classes for a picture",
    ),
    **{
        f"{command[0]} {option} without a tape": (
            command,
            f"{option}: got {value!r}; allowed: only with --tape",
        )
        for option, value in (("--part", "2"), ("--drop-longer-than", 9))
        for command in (
            (*REPLAY, option, value),
            (*COMPARE, "LOAD", option, value),
            (*SWEEP, "LOAD", option, value),
        )
    },
    **{
        f"equilibrium {option} without a picture": (
            ("equilibrium", "LOAD", *SERVER, option, value),
            f"{option}: got {value!r}; allowed: only with {needed}",
        )
        for option, value, needed in (
            ("--picture", "stages", "--plot"),
            ("--simulate", "1,2", "--plot"),
            ("--replications", 5, "--simulate"),
            ("--requests", 500, "--simulate"),
            ("--seed", 1, "--simulate"),
        )
    },
    "equilibrium --simulate of another picture": (
        ("equilibrium", "LOAD", *SERVER, *STAGES, "--simulate", "1,2"),
        "--simulate: got '1,2'; allowed: only with --picture latency",
    ),
    "report of nothing": (("report",), "report: got ''; allowed: a TABLE or --theorems"),
    "report of both": ((*REPORT, "--theorems"), "allowed: a TABLE or --theorems, one of them"),
    "report --quick alone": (("report", "--quick"), "allowed: a TABLE or --theorems"),
    "report --quick of a table": (
        (*REPORT, "--quick"),
        "--quick: got True; allowed: only with --theorems",
    ),
    "report --replications of the theory": (
        ("report", "--theorems", "--quick", "--replications", 5),
        "--replications: got 5; allowed: only with a TABLE",
    ),
    "report --requests of the theory": (
        ("report", "--theorems", "--quick", "--requests", 50),
        "--requests: got 50; allowed: only with a TABLE",
    ),
}


@pytest.fixture
def files(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[object, Path]:
    """A workload of one class, a table for it, and a tape, in the current folder."""
    monkeypatch.chdir(tmp_path)
    load, table, tape = (Path(name) for name in ("load.json", "table.json", "tape.csv"))
    chat = {"name": "chat", "rate_per_s": 2.0, "prefill_tokens": 64, "decode_tokens": 20}
    load.write_text(json.dumps({"name": "chat", "classes": [chat]}))
    assert call("solve", load, *SERVER, "-o", table).code == 0
    rows = "\n".join(f"{k},64,20" for k in range(50))
    tape.write_text(f"arrived_at,num_prefill_tokens,num_decode_tokens\n{rows}\n")
    return {"LOAD": load, "TABLE": table, "TAPE": tape}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_do_nothing_is_refused(call: Call, files: dict[object, Path], case: str) -> None:
    arguments, told = REFUSED[case]
    before = sorted(Path.cwd().iterdir())
    done = call(*(files.get(one, one) for one in arguments))
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert told in done.err
    assert [one for one in sorted(Path.cwd().iterdir()) if one.name != "rows"] == before
    as_json = call(*(files.get(one, one) for one in arguments), "--json")
    assert as_json.code == 2
    assert set(as_json.document["error"]) == {"kind", "file", "field", "value", "allowed"}


def test_a_page_about_a_table_is_no_document(call: Call, files: dict[object, Path]) -> None:
    done = call("report", files["TABLE"], "--json")
    assert done.code == 2
    assert done.document["error"]["allowed"] == "only with --theorems"


@pytest.mark.parametrize(
    "arguments",
    [
        (*REPLAY, *TAPE, "--rate", 2, "--policy", "greedy"),
        (*COMPARE, *TAPE, "--rates", "1,2", "--device", "auto"),
        (*SWEEP, *TAPE, "--rates", "1,2"),
        ("region", "LOAD", *SERVER, "--rate", 3),
    ],
    ids=lambda one: one[0],
)
def test_what_does_something_is_not(
    call: Call, files: dict[object, Path], arguments: tuple[object, ...]
) -> None:
    assert call(*(files.get(one, one) for one in arguments)).code == 0
