"""Sound loads and servers of any scale: an answer with what it keeps, or an error of ours."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.scales import QUESTIONS, any_scale, wrong


@settings(max_examples=16, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), question=st.sampled_from(QUESTIONS))
def test_answers_of_any_scale_keep_what_they_promise(seed: int, question: str) -> None:
    assert wrong(question, *any_scale(random.Random(seed))) is None
