"""Files in and out: whole or not at all, and every error names file, field, value and remedy."""

from __future__ import annotations

import json
import math
import os
import re
import resource
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from pydantic import model_validator

from fluid.conversation import Conversation
from fluid.errors import InputError
from fluid.files import FileModel, read_document, read_text, require_output, write_text
from fluid.iteration import IterationTime
from fluid.parsing import parse_yaml
from fluid.server import Server
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
        ({"slo": {"quantile": "p100"}}, "slo.quantile", '"mean", or a share between 0 and 1'),
        ({"slo": {"quantile": "p0"}}, "slo.quantile", '"mean", or a share between 0 and 1'),
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [" * 70, "levels"),
        ("name: &c [*c]\n", "*c"),
        ("<<: {a: 1}\n", "<<"),
        ("{[1]: 2}\n", "key"),
        ("name: !!binary aGk=\n", "!!binary"),
        ("name: !!int abc\n", "!!int abc"),
        ("name: " + "9" * 41 + "\n", "41 digits"),
        ("k" * 201 + ": 1\n", "k"),
        ("a: 1\n---\nb: 2\n", "second document"),
        ("name: *nobody\n", "nobody"),
    ],
)
def test_yaml_beyond_what_a_file_of_ours_holds(tmp_path, text, said):
    (tmp_path / "y.yaml").write_text(text)
    error = _refused(tmp_path / "y.yaml")
    assert said in f"{error.value} {error.allowed}"
    assert len(str(error)) < 400


def test_aliases_count_as_often_as_they_are_named(tmp_path):
    lines = ["a0: &a0 [" + ",".join(["lol"] * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 8)]
    (tmp_path / "y.yaml").write_text("\n".join([*lines, "name: *a7"]))
    assert "values" in _refused(tmp_path / "y.yaml").value
    (tmp_path / "few.yaml").write_text("a: &a [1, {b: &b two}]\nc: [*a, *b]\n")
    assert read_document(tmp_path / "few.yaml") == {
        "a": [1, {"b": "two"}],
        "c": [[1, {"b": "two"}], "two"],
    }
    (tmp_path / "long.yaml").write_text("a: &a " + "x" * 10**6 + "\nb: [" + "*a, " * 10**3 + "]\n")
    assert "values" in _refused(tmp_path / "long.yaml").value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0512", 512),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("0x_", "0x_"),
        ("1_000", "1_000"),
        ("1e-3", 1e-3),
        ("-.5", -0.5),
        ("yes", "yes"),
        ("true", True),
        ("~", None),
        ("''", ""),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("'7'", "7"),
        (".inf", math.inf),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = parse_yaml(f"a: {text}\n", "y.yaml")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000 + "]" * 100_000, "deep"),
        ("[" * 70 + "]" * 70, "levels"),
        ('{"name": ' + "9" * 41 + "}", "41 digits"),
        ("[" + "1," * 2_100_000 + "1]", "values"),
    ],
)
def test_json_beyond_what_a_file_of_ours_holds(tmp_path, text, said):
    (tmp_path / "j.json").write_text(text)
    assert said in _refused(tmp_path / "j.json").value


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    os.symlink("/dev/zero", tmp_path / "zero.json")
    for name in ("pipe.yaml", "zero.json", "/dev/null"):
        assert _refused(tmp_path / name).allowed == "a regular file"


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


def test_outputs_follow_links_and_keep_modes(tmp_path):
    kept, new = tmp_path / "kept.json", tmp_path / "new.json"
    kept.write_text("old")
    kept.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(kept)
    write_text(link, "text")
    assert (link.is_symlink(), kept.read_text(), kept.stat().st_mode & 0o777) == (
        True,
        "text",
        0o640,
    )
    before = os.umask(0o027)
    try:
        write_text(new, "text")
    finally:
        os.umask(before)
    assert new.stat().st_mode & 0o777 == 0o640
    (tmp_path / "dangling").symlink_to(tmp_path / "later.json")
    write_text(tmp_path / "dangling", "text")
    assert (tmp_path / "later.json").read_text() == "text"


def test_pipes_and_devices_are_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()
    write_text("/dev/null", "nowhere")
    assert not Path("/dev/null").is_file()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_an_input_error():
    with pytest.raises(InputError) as caught:
        write_text("/dev/full", "text")
    assert "No space" in caught.value.value
    assert not Path("/dev/full").is_file()


def test_a_file_cut_short_is_not_left(tmp_path):
    target = tmp_path / "out.json"
    write_text(target, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(InputError, match="too large"):
            write_text(target, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (target.read_text(), os.listdir(tmp_path)) == ("old", ["out.json"])


@pytest.mark.parametrize("name", ["", ".", "folder", "x" * 300, "absent/out.json"])
def test_outputs_that_cannot_be_written_are_known_before(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError) as caught:
        require_output(tmp_path / name if name not in {"", "."} else name)
    assert len(str(caught.value)) < 300


def test_a_change_is_checked_like_a_new_model():
    server = Server.named("engine-long-decode")
    assert server.changed(kv_capacity_tokens=999).usable_kv_tokens == 992
    assert server.changed() == server
    for change, message in (
        ({"kv_capacity_tokens": -5}, "kv_capacity_tokens: got -5"),
        ({"kv_capacity_tokens": 3}, "at least one block, 16 tokens"),
        ({"block_token": 3}, "did you mean block_tokens"),
        ({"iteration_time": lambda tokens: 0.1}, "IterationTime with the fields tokens_knots"),
        ({"iteration_time": 0.1}, "iteration_time: got 0.1"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            server.changed(**change)


def test_the_prompt_of_a_changed_conversation_follows_anew():
    talk = Conversation(turns=2.0, think_time_s=1.0, new_tokens=100)
    one = RequestClass(name="talk", rate_per_s=1.0, decode_tokens=50, conversation=talk)
    longer = one.changed(conversation=talk.changed(new_tokens=200))
    assert one.changed(rate_per_s=2.0).prefill_tokens == one.prefill_tokens < longer.prefill_tokens
    assert one.changed(conversation=None, prefill_tokens=7).prefill_tokens == 7


def test_lists_arrays_and_numbers_of_numpy_are_taken_by_hand():
    knots = IterationTime(tokens_knots=np.array([0.0, 1.0]), seconds_knots=[0.1, 0.2])
    assert knots == IterationTime(tokens_knots=(0.0, 1.0), seconds_knots=(0.1, 0.2))
    one = RequestClass(
        name="a", rate_per_s=np.float64(2), prefill_tokens=np.int64(512), decode_tokens=20
    )
    assert Workload(name="chat", classes=[one]) == Workload.from_document(GOOD)
    with pytest.raises(InputError, match=r"prefill_tokens: got 1\.5"):
        one.changed(prefill_tokens=np.float64(1.5))
