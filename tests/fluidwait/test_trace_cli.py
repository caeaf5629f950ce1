"""``fluidwait workload from-trace`` on every format."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluid.traces import TRACE_FORMATS, read_tape
from fluid.workload import Workload
from tests.support.command_line import Call

DATA = Path(__file__).resolve().parents[1] / "data" / "traces"
SAMPLES = {
    "aiperf": "aiperf.jsonl",
    "aiperf-summary": "aiperf-summary.json",
    "azure": "azure-2024.csv",
    "bailian": "bailian.jsonl",
    "burstgpt": "burstgpt.csv",
    "guidellm": "guidellm.json",
    "inference-perf": "inference-perf.json",
    "inference-perf-stage": "inference-perf-stage.json",
    "llmperf": "llmperf.json",
    "llmperf-summary": "llmperf-summary.json",
    "messages": "messages.jsonl",
    "mooncake": "mooncake.jsonl",
    "prometheus": "metrics.prom",
    "servegen": "servegen.json",
    "sglang-bench": "sglang-bench.jsonl",
    "sharegpt": "sharegpt.json",
    "splitwise": "splitwise.csv",
    "tape": "tape.csv",
    "vidur-lengths": "vidur-lengths.csv",
    "vllm-bench": "vllm-bench.json",
    "wildchat": "wildchat.jsonl",
}
SUMMARIES = {
    "aiperf-summary": 400,
    "inference-perf-stage": 300,
    "llmperf-summary": 150,
    "prometheus": 100,
    "servegen": 1,
}
WITHOUT_RATE = (
    "llmperf", "messages", "prometheus", "servegen", "sharegpt", "vidur-lengths", "wildchat",
)  # fmt: skip
UNTIMED = (
    *WITHOUT_RATE,
    "aiperf-summary",
    "inference-perf-stage",
    "llmperf-summary",
    "sglang-bench",
)
CHATS = ("--tokenizer", DATA / "tokenizer.json")


@pytest.mark.parametrize("form", TRACE_FORMATS)
@pytest.mark.parametrize("detected", [True, False])
def test_every_format_becomes_a_workload(
    form: str, detected: bool, call: Call, tmp_path: Path
) -> None:
    load = tmp_path / "load.yaml"
    named = () if detected else ("--format", form)
    rate = ("--rate", 2) if form in WITHOUT_RATE else ()
    done = call(
        "workload", "from-trace", DATA / SAMPLES[form], "-o", load, "--json", *named, *rate, *CHATS
    )
    assert (done.code, done.err) == (0, "")
    found = done.document
    assert found["format"] == form
    assert found["requests"] == SUMMARIES.get(form, 3)
    assert found["dropped"] == 0
    # Rates are written with six digits: off by 5 in the seventh of 1.00000 at most.
    assert max(found["errors"].values()) < 5e-6
    # Of a stage the output lengths are known by their mean only, so that nothing bounds them.
    assert ("intervals" in found) == (form in SUMMARIES and form != "inference-perf-stage")
    assert any("Poisson" in caveat for caveat in found["caveats"]) == (form in UNTIMED)
    assert Workload.read(load).document() == found["workload"]


@pytest.mark.parametrize("form", [form for form in TRACE_FORMATS if form not in UNTIMED])
def test_every_format_with_times_becomes_a_tape(form: str, call: Call, tmp_path: Path) -> None:
    tape = tmp_path / "tape.csv"
    done = call("workload", "from-trace", DATA / SAMPLES[form], "--tape-out", tape)
    assert done.code == 0
    assert f"Wrote {tape}." in done.out
    assert read_tape(tape).arrived_at_s[0] == 0
    assert len(read_tape(tape)) == 3


def test_a_trace_is_simulated_as_its_tape_is(call: Call, tmp_path: Path) -> None:
    trace, tape = DATA / SAMPLES["mooncake"], tmp_path / "tape.csv"
    call("workload", "from-trace", trace, "--tape-out", tape)
    policy = ("--server", "a100-80gb-llama-2-7b", "--policy", "greedy", "--json")
    documents = [call("compare", "--tape", one, *policy).document for one in (trace, tape)]
    assert documents[0] == documents[1]
    assert documents[0]["policies"][0]["completed_share"] > 0


def test_a_trace_without_times_is_not_simulated(call: Call) -> None:
    policy = ("--server", "a100-80gb-llama-2-7b", "--policy", "greedy")
    done = call("compare", "--tape", DATA / SAMPLES["prometheus"], *policy)
    assert done.code == 2
    assert "allowed: a trace with times" in done.err


@pytest.mark.parametrize("form", WITHOUT_RATE)
def test_formats_without_times_need_a_rate_and_give_no_tape(
    form: str, call: Call, tmp_path: Path
) -> None:
    command = ("workload", "from-trace", DATA / SAMPLES[form], *CHATS)
    for more, told in (((), "rate_per_s"), (("--tape-out", tmp_path / "t.csv"), "tape_out")):
        done = call(*command, *more)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert told in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["azure", "--format", "mooncake"], "one JSON object per line"),
        (["azure", "--format", "csv"], "one of aiperf, aiperf-summary, azure"),
        (["azure", "--rate", 0], "--rate: got 0.0"),
        (["azure", "--rate", 2, "--tape-out", "tape.csv"], "a replay at another rate"),
        (["azure", "--lengths", "heaviest"], "only for a snapshot"),
        (["prometheus", "--rate", 2, "--lengths", "odd"], "independent, lightest, heaviest"),
        (["prometheus", "--rate", 2, "--part", "other"], "one of the models made-up"),
        (["guidellm", "--part", 2], "--part: got 2; allowed: 1 to 1"),
        (["tape", "--part", 2], "--part: got '2'; allowed: nothing for a file of the format tape"),
        (["tape", "--since", "s"], "--since: got 's'; allowed: nothing for a file of the format"),
        (["tape", "--drop-longer-than", 1], "--drop-longer-than: got 1; allowed: at least 2"),
        (["prometheus", "--rate", 2, "--drop-longer-than", 9], "no single requests"),
        (["sharegpt", "--rate", 2], "a tokenizer.json"),
    ],
)
def test_bad_options_are_one_line(
    arguments: list[object],
    told: str,
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    form, *options = arguments
    done = call("workload", "from-trace", DATA / SAMPLES[str(form)], *options)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert told in done.err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_where_the_summary_fails(call: Call, tmp_path: Path) -> None:
    written = ("--tape-out", tmp_path / "tape.csv", "-o", tmp_path / "load.yaml")
    done = call("workload", "from-trace", DATA / "tape.csv", *written, "--classes", 1)
    assert done.code == 3
    at_once = tmp_path / "at-once.csv"
    at_once.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + "1,2,3\n" * 5)
    done = call("workload", "from-trace", at_once, *written)
    assert done.code == 2
    assert "no arrivals over time" in done.err
    assert list(tmp_path.iterdir()) == [at_once]


def test_failed_requests_are_refused_or_told(call: Call, tmp_path: Path) -> None:
    trace = tmp_path / "burst.csv"
    trace.write_text((DATA / "burstgpt.csv").read_text() + "11,ChatGPT,80,0,80,API log\n")
    done = call("workload", "from-trace", trace)
    assert done.code == 2
    assert "line 5: got '80 prompt and 0 output tokens'" in done.err
    load = tmp_path / "load.yaml"
    done = call("workload", "from-trace", trace, "--drop-failed", "-o", load)
    assert done.code == 0
    assert "Requests left out: 1, 25.00 % of all" in done.out
    assert "# Requests left out: 1" in load.read_text(encoding="utf-8")
    counted = call("workload", "from-trace", trace, "--drop-failed", "--json").document
    assert (counted["requests"], counted["dropped"]) == (3, 1)


def test_a_snapshot_says_what_it_does_not_know(call: Call, tmp_path: Path) -> None:
    loads = {}
    for lengths in ("independent", "lightest", "heaviest"):
        load = tmp_path / f"{lengths}.yaml"
        done = call(
            "workload", "from-trace", DATA / "metrics.prom", "--rate", 2, "-o", load,
            "--lengths", lengths,
        )  # fmt: skip
        assert done.code == 0
        assert "which prompt met which output is lost" in done.out
        assert "whatever the correlation" in done.out
        text = load.read_text(encoding="utf-8")
        assert "# memory sum per request: " in text
        loads[lengths] = Workload.read(load)
        assert lengths in str(loads[lengths].source)
    memory = {
        name: sum(
            one.rate_per_s * one.decode_tokens * (one.prefill_tokens + (one.decode_tokens - 1) / 2)
            for one in load.classes
        )
        / load.rate_per_s
        for name, load in loads.items()
    }
    told = call("workload", "from-trace", DATA / "metrics.prom", "--rate", 2, "--json").document
    ends = told["intervals"]["memory sum"]
    assert [memory["lightest"], memory["heaviest"]] == pytest.approx(ends, rel=1e-3)
    assert ends[0] < memory["independent"] < ends[1]


def test_another_rate_than_the_trace_has(call: Call) -> None:
    done = call("workload", "from-trace", DATA / "tape.csv", "--rate", 7, "--json")
    assert done.document["rate_per_s"] == 7
    total = sum(one["rate_per_s"] for one in done.document["workload"]["classes"])
    assert total == pytest.approx(7, rel=1e-5)


TALK = "turns: 400, think_time_s: 1, new_tokens: 200"
BAD_PREFIXES = {
    "a prefix longer than the prompt": (
        "prefill_tokens: 99, shared_prefix_tokens: 100",
        "shared_prefix_tokens must not be above prefill_tokens",
    ),
    "a conversation that outgrows the server": (
        f"conversation: {{{TALK}}}",
        "KV tokens at its end",
    ),
    "a length beside a conversation": (
        f"prefill_tokens: 9, conversation: {{{TALK}}}",
        "left out beside conversation",
    ),
}


@pytest.mark.parametrize(("fields", "said"), BAD_PREFIXES.values(), ids=BAD_PREFIXES)
def test_prefixes_that_cannot_be_are_refused(
    fields: str, said: str, call: Call, tmp_path: Path
) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(
        f"name: w\nclasses: [{{name: chat, rate_per_s: 1, decode_tokens: 9, {fields}}}]\n"
    )
    found = call("equilibrium", path, "--server", "a100-80gb-llama-2-7b")
    assert (found.code, found.out) == (2, "")
    assert said in found.err
    assert found.err.count("\n") == 1


def test_hash_ids_that_do_not_fit_the_length_are_refused(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    row = '{"timestamp": %d, "input_length": 1100, "output_length": 2, "hash_ids": %s}\n'
    path.write_text(row % (0, [1, 2, 3]) + row % (9, [1, 2, 3, 4]))
    found = call("workload", "from-trace", path)
    assert (found.code, found.out) == (2, "")
    assert (
        "line 2: block ids: got '4 ids'; allowed: 3 ids, one for each 512 of the 1100" in found.err
    )
    assert found.err.count("\n") == 1
