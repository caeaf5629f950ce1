"""Workload files: what is accepted, what is refused and in which words."""

from __future__ import annotations

import copy
import json
import math

import pytest

from fluid.errors import InputError
from fluid.workload import RequestClass, Requests, Slo, Workload

CHAT = {"name": "chat", "rate_per_s": 12.0, "prefill_tokens": 512, "decode_tokens": 20}
CODE = {"name": "code", "rate_per_s": 3.0, "prefill_tokens": 2048, "decode_tokens": 50}


def _document(**changes):
    first = {key: value for key, value in (CHAT | changes).items() if value is not None}
    return {"name": "mix", "classes": [first, copy.deepcopy(CODE)]}


def _refused(tmp_path, document) -> InputError:
    path = tmp_path / "workload.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError) as caught:
        Workload.read(path)
    error = caught.value
    for part in (str(path), error.field, error.allowed):
        assert part in str(error)
    return error


def test_rates_scale_and_mix_stays():
    workload = Workload.from_document(_document())
    assert workload.rate_per_s == 15.0
    assert [one.rate_per_s for one in workload.scaled(2).classes] == [24.0, 6.0]
    assert workload.at_rate(30).rate_per_s == pytest.approx(30.0)
    assert [one.rate_per_s for one in workload.at_rate(30).classes] == pytest.approx([24.0, 6.0])


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_scaling_by_nonsense_is_refused(factor):
    workload = Workload.from_document(_document())
    for scale, field in ((workload.scaled, "factor"), (workload.at_rate, "rate_per_s")):
        with pytest.raises(InputError) as caught:
            scale(factor)
        assert caught.value.field == field


def test_optional_fields():
    document = _document(slo={"ttft_s": 1.0, "tpot_s": 0.05, "quantile": 0.9}, weight=2.0)
    document |= {"decode_known": False, "source": "made up"}
    workload = Workload.from_document(document)
    assert workload.classes[0].slo.quantile == 0.9
    assert workload.classes[1].slo is None
    assert not workload.decode_known


def test_misspelt_field_is_answered_with_a_hint(tmp_path):
    error = _refused(tmp_path, _document(rate_per_s=None, rate_per_min=720))
    assert (error.field, error.value) == ("classes[0].rate_per_min", 720)
    assert error.allowed.startswith("did you mean rate_per_s?")


def test_unknown_field_lists_the_fields(tmp_path):
    error = _refused(tmp_path, _document() | {"zzz": 1})
    assert (error.field, error.value) == ("zzz", 1)
    assert "classes" in error.allowed


def test_hint_inside_a_nested_model(tmp_path):
    error = _refused(tmp_path, _document(slo={"ttft": 1.0}))
    assert error.field == "classes[0].slo.ttft"
    assert "ttft_s" in error.allowed


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("rate_per_s", -2.0, "greater than 0"),
        ("rate_per_s", 0, "greater than 0"),
        ("rate_per_s", "fast", "number"),
        ("rate_per_s", math.nan, "finite"),
        ("rate_per_s", math.inf, "finite"),
        ("decode_tokens", 0, "greater than or equal to 1"),
        ("decode_tokens", 2.5, "integer"),
        ("prefill_tokens", -1, "greater than or equal to 0"),
        ("prefill_tokens", True, "integer"),
        ("name", "", "at least 1 character"),
        ("weight", 0.0, "greater than 0"),
    ],
)
def test_bad_value_is_named(tmp_path, field, value, words):
    error = _refused(tmp_path, _document(**{field: value}))
    assert error.field == f"classes[0].{field}"
    assert error.value == value or (math.isnan(value) and math.isnan(error.value))
    assert words in error.allowed


def test_second_class_is_counted(tmp_path):
    document = _document()
    document["classes"][1]["decode_tokens"] = 0
    assert _refused(tmp_path, document).field == "classes[1].decode_tokens"


def test_missing_field(tmp_path):
    error = _refused(tmp_path, _document(decode_tokens=None))
    assert (error.field, error.value) == ("classes[0].decode_tokens", "nothing")
    assert "required" in error.allowed


def test_no_classes(tmp_path):
    error = _refused(tmp_path, {"name": "mix", "classes": []})
    assert (error.field, error.value, error.allowed) == ("classes", [], "at least 1 entry")


@pytest.mark.parametrize(
    ("prefill", "context"), [(512, 100), (0, 0)], ids=["both given", "neither given"]
)
def test_prompt_or_context(tmp_path, prefill, context):
    error = _refused(tmp_path, _document(prefill_tokens=prefill, context_tokens=context))
    assert error.field == "classes[0]"
    assert "prefill_tokens" in error.allowed


def test_class_names_are_unique(tmp_path):
    assert "'code'" in _refused(tmp_path, _document(name="code")).allowed


def test_a_workload_in_one_line_is_that_of_its_classes():
    slo = Slo(ttft_s=1.0)
    found = Workload.of(
        "mix",
        chat=Requests(12.0, 512, 20, slo=slo, weight=2.0),
        next=Requests(3.0, prompt=0, output=50, context=64),
    )
    first, second = found.classes
    assert first == RequestClass(
        name="chat",
        rate_per_s=12.0,
        prefill_tokens=512,
        decode_tokens=20,
        slo=slo,
        weight=2.0,
    )
    assert (second.name, second.prefill_tokens, second.context_tokens) == ("next", 0, 64)
    # `name` is a class like any other.
    assert Workload.of(name=Requests(1.0, 1, 1)).classes[0].name == "name"
    assert Workload.of(a=Requests(1.0, 1, 1)).name == "workload"


@pytest.mark.parametrize(
    ("arguments", "options", "field"),
    [
        ((-1, 512, 120), {}, "rate_per_s"),
        ((1.0, -1, 120), {}, "prompt"),
        ((1.0, 512, 0), {}, "output"),
        ((1.0, 0, 20), {"context": -3}, "context"),
        ((1.0, 512, 120), {"weight": 0}, "weight"),
        ((math.nan, 512, 120), {}, "rate_per_s"),
    ],
)
def test_requests_out_of_range_are_named_as_they_were_given(arguments, options, field):
    with pytest.raises(ValueError, match=f"^{field}: got ") as caught:
        Requests(*arguments, **options)
    assert isinstance(caught.value, InputError)


def test_a_workload_needs_classes_of_requests():
    with pytest.raises(InputError, match=r"classes: got .*at least 1 entry"):
        Workload.of("empty")
    with pytest.raises(InputError, match=r"chat: got 7\.0; allowed: Requests\("):
        Workload.of(chat=7.0)
