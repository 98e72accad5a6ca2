# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The XML that callers get is what slapos.core itself would write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slapos.slap.slap import ComputerPartition, SoftwareInstance, SoftwareRelease
from slapos.util import dumps, loads

from slapos_wendelin.master.xml_writer import dump

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | TEXTS
    | st.sampled_from(["\r\n\t", "]]>", "&amp;", "<a>", "\x7f\x85", "\U0001f600"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXTS | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_plain_values_are_written_byte_for_byte_as_slapos_core_writes_them(value: object):
    assert dump(value) == dumps(value)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_documents_are_written_as_slapos_core_writes_them(attributes: dict[str, object]):
    partition = ComputerPartition("paris", "slappart0")
    vars(partition).update(attributes, _release=SoftwareRelease("a", "paris"))
    for document in (partition, SoftwareInstance(**attributes), [partition, partition]):
        assert dump(document) == dumps(document)


def test_what_stands_in_two_places_is_written_once():
    inner: list[object] = [1]
    value = {"a": inner, "b": [inner, {}, {}], "c": ()}
    assert dump(value) == dumps(value)
    assert loads(dump(value)) == value


@pytest.mark.parametrize("text", ["\x00", "\x0b", "\ufffe", "\ud800"])
def test_a_character_that_xml_cannot_hold_is_refused(text: str):
    with pytest.raises(ValueError, match="XML cannot hold the character"):
        dump([text])


def test_objects_of_other_classes_are_refused():
    with pytest.raises(TypeError, match="object cannot be written"):
        dump([object()])
