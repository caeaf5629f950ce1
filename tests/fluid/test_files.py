"""Files in and out: whole or not at all, and every error names file, field, value and remedy."""

from __future__ import annotations

import json
import os
import re
from typing import Self

import pytest
from pydantic import model_validator

from fluid.errors import InputError
from fluid.files import FileModel, read_document, read_text, write_text
from fluid.workload import RequestClass, Workload

GOOD = {
    "name": "chat",
    "classes": [{"name": "a", "rate_per_s": 2, "prefill_tokens": 512, "decode_tokens": 20}],
}


def _refused(path) -> InputError:
    with pytest.raises(InputError) as caught:
        Workload.read(path)
    assert str(path) in str(caught.value)
    assert caught.value.file == str(path)
    return caught.value


def test_yaml_and_json_say_the_same(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps(GOOD))
    (tmp_path / "w.yaml").write_text(
        "name: chat\nclasses:\n"
        "  - {name: a, rate_per_s: 2, prefill_tokens: 512, decode_tokens: 20}\n"
    )
    assert Workload.read(tmp_path / "w.json") == Workload.read(tmp_path / "w.yaml")


def test_document_reads_back_to_the_same_model_and_hash(tmp_path):
    workload = Workload.from_document(GOOD)
    write_text(tmp_path / "w.json", json.dumps(workload.document()))
    again = Workload.read(tmp_path / "w.json")
    assert again == workload
    assert again.sha256() == workload.sha256()
    assert again.scaled(2.0).sha256() != workload.sha256()


def test_a_model_built_by_hand_is_refused_as_a_file_is(tmp_path):
    request = GOOD["classes"][0]
    for change, field, allowed in (
        ({"rate_per_s": -1}, "rate_per_s", "input should be greater than 0"),
        ({"decode_tokens": 2.5}, "decode_tokens", "input should be a valid integer"),
        ({"rate": 1}, "rate", "did you mean rate_per_s?"),
        ({"slo": {"quantile": 3}}, "slo.quantile", '"mean", or a share between 0 and 1'),
    ):
        with pytest.raises(ValueError, match=re.escape(allowed)) as by_hand:
            RequestClass(**(request | change))
        assert isinstance(by_hand.value, InputError)
        assert (by_hand.value.field, by_hand.value.file) == (field, None)
        (tmp_path / "w.json").write_text(json.dumps(GOOD | {"classes": [request | change]}))
        of_file = _refused(tmp_path / "w.json")
        assert of_file.field == f"classes[0].{field}"
        assert (of_file.value, of_file.allowed) == (by_hand.value.value, by_hand.value.allowed)


def test_a_model_given_to_another_keeps_its_error_and_its_values():
    with pytest.raises(InputError, match="name: got 'nothing'; allowed: this field is required"):
        Workload(classes=())
    one = RequestClass(**GOOD["classes"][0])
    assert Workload(name="chat", classes=(one,)).classes[0] is one
    with pytest.raises(InputError, match=r"^got .*context_tokens ≥ 1"):
        RequestClass(name="a", rate_per_s=1.0, prefill_tokens=0, decode_tokens=1)


def test_an_error_raised_inside_a_validator_keeps_its_field(tmp_path):
    class Outer(FileModel):
        share: float

        @model_validator(mode="after")
        def _check(self) -> Self:
            raise InputError("inner", self.share, "something else")

    with pytest.raises(InputError, match=r"^inner: got 0\.5; allowed: something else"):
        Outer(share=0.5)
    (tmp_path / "o.json").write_text('{"share": 0.5}')
    with pytest.raises(InputError) as caught:
        Outer.read(tmp_path / "o.json")
    assert (caught.value.field, caught.value.file) == ("inner", str(tmp_path / "o.json"))


def test_exponent_without_a_point_is_a_number_in_yaml(tmp_path):
    (tmp_path / "n.yaml").write_text("small: 1e-3\nnegative: -2E5\nword: e5\n")
    assert read_document(tmp_path / "n.yaml") == {"small": 1e-3, "negative": -2e5, "word": "e5"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("d.yaml", "name: chat\nname: code\nclasses: []\n"),
        ("d.json", '{"name": "chat", "name": "code", "classes": []}'),
    ],
)
def test_duplicate_key(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    error = _refused(tmp_path / name)
    assert (error.field, error.value, error.allowed) == ("name", "given twice", "each key once")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [("b.yaml", "name: [1,\n", "line 2"), ("b.json", '{"name": }', "line 1")],
)
def test_broken_syntax_names_the_line(tmp_path, name, text, line):
    (tmp_path / name).write_text(text)
    error = _refused(tmp_path / name)
    assert error.field == line
    assert error.allowed == ("valid YAML" if name.endswith("yaml") else "valid JSON")


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "just words\n"])
def test_a_file_must_hold_a_mapping(tmp_path, text):
    (tmp_path / "m.yaml").write_text(text)
    assert _refused(tmp_path / "m.yaml").allowed == "a mapping of fields"


def test_missing_file_folder_and_encoding(tmp_path):
    assert _refused(tmp_path / "absent.yaml").value == "no such file"
    (tmp_path / "folder").mkdir()
    assert "directory" in _refused(tmp_path / "folder").value
    (tmp_path / "latin.json").write_bytes("é".encode("latin-1"))
    assert _refused(tmp_path / "latin.json").value == "not UTF-8 text"


def test_error_as_document():
    error = InputError("classes[0].rate_per_s", -1.0, "a positive number").in_file("w.yaml")
    assert str(error) == "w.yaml: classes[0].rate_per_s: got -1.0; allowed: a positive number"
    assert error.as_dict() == {
        "kind": "input",
        "file": "w.yaml",
        "field": "classes[0].rate_per_s",
        "value": "-1.0",
        "allowed": "a positive number",
    }


def test_long_values_are_shortened():
    assert len(str(InputError("field", "x" * 1000, "less"))) < 120


def test_write_replaces_whole_and_leaves_no_temporary(tmp_path):
    target = tmp_path / "out.json"
    write_text(target, "first")
    write_text(target, "second")
    assert read_text(target) == "second"
    assert os.listdir(tmp_path) == ["out.json"]


def test_failed_write_keeps_the_old_file(tmp_path):
    target = tmp_path / "out.json"
    write_text(target, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "\ud800")
    assert read_text(target) == "old"
    assert os.listdir(tmp_path) == ["out.json"]


def test_write_into_a_missing_folder(tmp_path):
    with pytest.raises(InputError) as caught:
        write_text(tmp_path / "absent" / "out.json", "text")
    assert caught.value.allowed == "a path in an existing folder"
