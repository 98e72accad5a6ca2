# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed option values."""

import collections
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zc.buildout import configparser

from slapos_wendelin.buildout import values

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary()
)
hashable = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
typed = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.sets(hashable, max_size=4)
    ),
)


@given(typed)
def test_a_value_is_read_back_as_it_was_written(value):
    read = values.loads(values.dumps(value))
    assert read == value
    assert type(read) is type(value)


@given(typed)
def test_a_value_survives_a_profile(value):
    text = f"[section]\noption = {values.dumps(value)}\n"
    (option,) = configparser.parse(io.StringIO(text), "profile")["section"].values()
    assert values.loads(option) == value


@given(typed)
def test_nothing_in_a_value_is_taken_for_syntax_of_buildout(value):
    text = values.dumps(value)
    assert text.isascii()
    assert not set(text) & set("$;#%\n\t\r")


@given(st.lists(st.text() | st.binary(), min_size=2, unique=True), st.randoms())
def test_equal_sets_are_written_alike(items, random):
    shuffled = random.sample(items, len(items))
    assert values.dumps(set(items)) == values.dumps(set(shuffled))


def test_subclasses_are_written_as_plain_values():
    class Text(str):
        __slots__ = ()

    value = collections.OrderedDict(name=Text("x"), ports=collections.deque([1]))
    read = values.loads(values.dumps(value))
    assert read == {"name": "x", "ports": [1]}
    assert type(read) is dict
    assert type(read["name"]) is str


@pytest.mark.parametrize("value", [object(), float("inf"), float("nan"), {"a": [object]}])
def test_what_has_no_literal_form_is_refused(value):
    with pytest.raises(TypeError, match="an option cannot hold"):
        values.dumps(value)


@pytest.mark.parametrize("text", ["x", "!py!", "!py!open('x')", "!py!{1: ", "!py!{[]: 1}"])
def test_text_that_is_no_literal_is_refused_and_not_run(text):
    with pytest.raises(ValueError, match="does not"):
        values.loads(text)
