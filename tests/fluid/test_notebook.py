"""The explorer's logic without a browser: sliders change the load, the sentence and the picture."""

from __future__ import annotations

import threading

import pytest

from fluid.errors import InputError
from fluid.plots.explorer import (
    Setting,
    explored,
    explorer_png,
    latency_text,
    region_explorer,
    verdict_text,
)
from fluid.server import Server, load_server
from fluid.steady.region import StabilityRegion
from fluid.workload import RequestClass, Workload

SERVER = load_server("engine-long-decode")
PAIR = Workload(
    name="pair",
    classes=(
        RequestClass(name="chat", rate_per_s=2.0, prefill_tokens=512, decode_tokens=200),
        RequestClass(name="report", rate_per_s=0.5, prefill_tokens=512, decode_tokens=1000),
    ),
)


def test_a_setting_changes_what_its_names_say():
    setting = Setting(SERVER, rate_per_s=5.0, memory_factor=0.5, output_factor=2.0)
    workload, server = explored(PAIR, setting)
    assert workload.rate_per_s == pytest.approx(5.0)
    rates = [one.rate_per_s for one in workload.classes]
    assert rates[0] / rates[1] == pytest.approx(4.0)
    assert [one.decode_tokens for one in workload.classes] == [400, 2000]
    assert server.kv_capacity_tokens == SERVER.kv_capacity_tokens // 2


def test_the_sentence_agrees_with_the_region():
    edge = StabilityRegion(PAIR, SERVER).reach([2.0, 0.5]) * PAIR.rate_per_s
    assert verdict_text(PAIR.at_rate(0.99 * edge), SERVER).startswith("INSIDE")
    assert verdict_text(PAIR.at_rate(1.01 * edge), SERVER).startswith("OUTSIDE")


@pytest.fixture
def explorer():
    box = region_explorer(PAIR, [SERVER, load_server("paper-long-decode")])
    names = ("server", "rate", "memory", "output", "text", "image")
    return dict(zip(names, box.children, strict=True))


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("server", load_server("paper-long-decode")),
        ("rate", 7.0),
        ("memory", 0.2),
        ("output", 3.0),
    ],
)
def test_every_control_changes_picture_and_sentence(explorer, control: str, value: float | Server):
    picture_before, text_before = bytes(explorer["image"].value), explorer["text"].value
    assert picture_before.startswith(b"\x89PNG")
    explorer[control].value = value
    assert bytes(explorer["image"].value) != picture_before
    assert explorer["text"].value != text_before


def test_the_last_change_is_drawn_also_where_threads_serve_the_sliders(explorer, monkeypatch):
    """The first drawing is held up until the second one, of a newer value, is done or waits."""
    drawing, second_done = threading.Event(), threading.Event()

    def slow_at_first(region: StabilityRegion, start: StabilityRegion, times) -> bytes:
        if not drawing.is_set():
            drawing.set()
            second_done.wait(1.0)
        return explorer_png(region, start, times)

    monkeypatch.setattr("fluid.plots.explorer.explorer_png", slow_at_first)
    first = threading.Thread(target=setattr, args=(explorer["rate"], "value", 3.0))
    first.start()
    assert drawing.wait(60.0)
    explorer["rate"].value = 7.0
    second_done.set()
    first.join()
    last = PAIR.at_rate(explorer["rate"].value)
    said = f"{verdict_text(last, SERVER)} {latency_text(last, SERVER)}"
    assert explorer["text"].value == said


def test_a_request_that_no_longer_fits_is_said_and_not_raised(explorer):
    tiny = SERVER.model_copy(update={"name": "tiny", "kv_capacity_tokens": 1200})
    before = bytes(explorer["image"].value)
    explorer["server"].options = [(tiny.name, tiny)]
    assert "classes[1] (report): got '1520 KV tokens at its end'" in explorer["text"].value
    assert "last setting that fits" in explorer["text"].value
    assert bytes(explorer["image"].value) == before


def test_the_explorer_needs_two_classes():
    with pytest.raises(InputError, match="two"):
        region_explorer(PAIR.model_copy(update={"classes": PAIR.classes[:1]}), [SERVER])
