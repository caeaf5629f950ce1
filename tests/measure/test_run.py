"""What is measured and how far: targets, designs, and devices without enough memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

from fluid.errors import InputError  # noqa: E402
from validation.measure import paper_design  # noqa: E402
from validation.measure.closed_loop import AlikeRequests, closed_loop_policies  # noqa: E402
from validation.measure.design import BatchDesign  # noqa: E402
from validation.measure.floor import DEVICES, device_limits  # noqa: E402
from validation.measure.importers import read_measurements  # noqa: E402
from validation.measure.paper_design import measure_paper_design, paper_batches  # noqa: E402
from validation.measure.run import measure_batches  # noqa: E402
from validation.measure.target import Target  # noqa: E402
from validation.measure.timer import Timer, Timing  # noqa: E402

TINY = {"model": "tiny", "dtype": "float32", "device": "cpu"}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_run_holds_the_rows_that_it_wrote(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    done: list[None] = []
    found = measure_batches(
        Target.named(**TINY),
        BatchDesign(2, 64, 32),
        str(out),
        Timer(0, 1),
        command="by hand",
        on_done=lambda: done.append(None),
    )
    read, rows = read_measurements(out), found.frame()
    assert len(read) == len(rows["kind"]) == found.planned == len(done)
    assert rows["iteration_s"] == pytest.approx(read.seconds.tolist(), rel=1e-5)
    assert read.compositions.decode_requests.tolist() == rows["decodes"]
    assert found.record.command == "by hand"
    assert not found.is_interrupted


def test_graphs_without_cuda_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    target, out = Target.named(**TINY), tmp_path / "rows.csv"
    with pytest.raises(InputError, match="only with device cuda"):
        measure_batches(target, BatchDesign(2, 64, 32), out, cuda_graphs=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("named", "field"),
    [({"model": "gpt-9"}, "model"), ({"dtype": "int3"}, "dtype"), ({"device": "tpu"}, "device")],
)
def test_an_unknown_target_is_named(named: dict[str, str], field: str) -> None:
    with pytest.raises(InputError) as caught:
        Target.named(**(TINY | named))
    assert caught.value.field == field


def checkpoint(target: Target) -> dict[str, Any]:
    """Its weights as they lie in a file: each for itself."""
    weights = target.decoder().checkpoint_weights()
    return {name: weight.clone() for name, weight in weights.items()}


def test_a_target_says_where_its_weights_come_from(tmp_path: Path) -> None:
    plain = Target.named(**TINY)
    assert plain.weights == "random weights"
    folder = tmp_path / "llama"
    folder.mkdir()
    save_file(checkpoint(plain), folder / "model.safetensors")
    named = Target.named(**TINY, checkpoint=folder)
    assert named.weights == "weights of llama"
    for one, other in zip(plain.decoder().parameters(), named.decoder().parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_is_looked_at_before_a_model_is_made(tmp_path: Path) -> None:
    """Seven billion weights would be a minute and 13 GB first."""
    with pytest.raises(InputError, match="a folder with"):
        Target.named(**TINY, checkpoint=tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"no header")
    with pytest.raises(InputError, match="a safetensors file"):
        Target.named(**TINY, checkpoint=tmp_path)
    weights = checkpoint(Target.named(**TINY))
    first = next(iter(weights))
    save_file(weights | {first: weights[first][:1].clone()}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="of model tiny"):
        Target.named(**TINY, checkpoint=tmp_path)
    save_file(
        {name: one for name, one in weights.items() if name != first}, tmp_path / "a.safetensors"
    )
    with pytest.raises(InputError, match="every weight"):
        Target.named(**TINY, checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: BatchDesign(most_decodes=0), "most_decodes"),
        (lambda: BatchDesign(longest_context=63), "longest_context"),
        (lambda: BatchDesign(longest_prompt=15), "longest_prompt"),
        (lambda: AlikeRequests(requests=4), "requests"),
        (lambda: AlikeRequests(output_tokens=0), "output_tokens"),
        (lambda: paper_batches(7), "largest"),
    ],
)
def test_sizes_out_of_range_are_named(make: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.field == field


def timed_up_to(most: int) -> Any:
    """Batches of more requests than this do not fit; time is 1 s and 1 ms per KV token."""

    def measure_batch(decoder: Any, batch: Any, timer: Any) -> Timing:
        if batch.slots > most:
            raise torch.OutOfMemoryError
        return Timing(1.0 + 1e-3 * batch.slots * batch.length, 0.0)

    return measure_batch


def test_the_paper_design_says_what_it_could_not_extrapolate_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paper_design, "measure_batch", timed_up_to(16))
    found = measure_paper_design(Target.named(**TINY), Timer(0, 1), largest=32)
    assert found.batches == (1, 2, 4, 8, 16)
    assert found.extrapolated_to == 32
    assert found.decode_iterations.extrapolation_error is None
    assert found.decode_iterations.d1_s == pytest.approx(1e-3, rel=0.01)
    assert "error at B = 32" in str(found)
    assert found.document()["whole_runs"]["extrapolation_error"] is None


def test_too_little_memory_for_a_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_design, "measure_batch", timed_up_to(4))
    with pytest.raises(InputError, match="3 runs that fit into memory"):
        measure_paper_design(Target.named(**TINY), Timer(0, 1), largest=32)


def test_greedy_is_always_served_beside_the_table() -> None:
    assert list(closed_loop_policies(None)) == ["greedy"]


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_by_name_or_by_its_figures_is_the_same(name: str) -> None:
    one = DEVICES[name]
    figures = (one.bandwidth_bytes_per_s / 1e9, one.operations_per_s / 1e12)
    own = device_limits(None, *figures)
    assert own.bandwidth_bytes_per_s == pytest.approx(device_limits(name).bandwidth_bytes_per_s)
    assert own.operations_per_s == pytest.approx(device_limits(name).operations_per_s)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((None, None, None), "on"),
        (("abacus", None, None), "on"),
        ((None, 2000.0, None), "bandwidth_gb_per_s"),
        ((None, None, 300.0), "tflops"),
        ((None, 2000.0, -1.0), "tflops"),
        (("l4", None, 300.0), "tflops"),
        (("l4", 2000.0, 300.0), "bandwidth_gb_per_s"),
    ],
)
def test_limits_that_contradict_or_lack_each_other(arguments: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        device_limits(*arguments)
    assert caught.value.field == field
    assert "--" not in str(caught.value)
