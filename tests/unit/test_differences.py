# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between two documents is named, and only that."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slapos_wendelin.differences import differences

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([1.0, "", "a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(st.sampled_from("abc"), VALUES)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"a": 1}, {"a": 1.0}, ["a: 1 → 1.0"]),
        ({"a": [1]}, {"a": [True]}, ["a: [1] → [true]"]),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ["a.b: 1 → 2"]),
        ({"a": "x"}, {}, ["a: x → (none)"]),
        ({}, {"a": None}, ["a: null"]),
        ({"a": [{"b": 1, "c": 2}]}, {"a": [{"c": 2, "b": 1}]}, []),
    ],
)
def test_each_value_that_differs_is_told(
    before: dict[str, Any], after: dict[str, Any], told: list[str]
):
    assert [str(each) for each in differences(before, after)] == told


@given(before=DOCUMENTS, after=DOCUMENTS)
def test_documents_are_the_same_when_their_json_is(before: dict[str, Any], after: dict[str, Any]):
    texts = [json.dumps(each, sort_keys=True) for each in (before, after)]
    assert (not list(differences(before, after))) == (texts[0] == texts[1])
