# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of arrays and blocks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slapos_wendelin.neo import geometry
from slapos_wendelin.neo.errors import ArrayError

lengths = st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple)


@given(lengths)
def test_each_block_has_one_number(grid):
    places = list(itertools.product(*map(range, grid)))
    numbers = [geometry.number_of(place, grid) for place in places]
    assert numbers == list(range(math.prod(grid)))
    assert [geometry.place_of(number, grid) for number in numbers] == places


@given(lengths, st.integers(1, 5))
def test_numbers_stay_when_the_first_axis_grows(grid, growth):
    longer = (grid[0] + growth, *grid[1:])
    for place in itertools.product(*map(range, grid)):
        assert geometry.number_of(place, grid) == geometry.number_of(place, longer)


@given(lengths, st.data())
def test_blocks_cover_the_array_once(shape, data):
    chunks = tuple(data.draw(st.integers(1, length + 2)) for length in shape)
    seen = np.zeros(shape, int)
    for number in range(math.prod(geometry.grid_shape(shape, chunks))):
        seen[geometry.block_slices(number, shape, chunks)] += 1
    assert (seen == 1).all()


@given(
    st.lists(st.integers(0, 10**18), min_size=1, max_size=4).map(tuple),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.sampled_from(["C", "F"]),
)
def test_chosen_chunks_are_at_most_2_mib(shape, itemsize, order):
    chunks = geometry.default_chunks(shape, itemsize, order)
    geometry.check_chunks(shape, chunks, itemsize)
    assert math.prod(chunks) * itemsize <= geometry.BLOCK_BYTES


def test_chosen_chunks_are_rows_in_c_order_and_columns_in_fortran_order():
    assert geometry.default_chunks((10**9, 64), 4, "C") == (8192, 64)
    assert geometry.default_chunks((10**18, 2), 8, "F") == (262144, 1)


def test_lengths_may_be_whole_floats():
    assert geometry.whole_lengths("shape", (1e18, 2)) == (10**18, 2)
    assert geometry.whole_lengths("shape", 7) == (7,)
    assert geometry.whole_lengths("shape", np.array([3, 4])) == (3, 4)


@pytest.mark.parametrize("length", [-1, 1.5, float("inf"), float("nan"), "many"])
def test_a_length_that_is_no_whole_number_is_named(length):
    with pytest.raises(ArrayError, match="shape has the length"):
        geometry.whole_lengths("shape", (1, length))


def test_a_block_too_large_for_an_object_is_refused_with_what_would_do():
    with pytest.raises(ArrayError, match=r"16\.0 MiB.*limit is 8 MiB.*about 2 MiB"):
        geometry.check_chunks((10**6, 1024), (2048, 1024), 8)


@pytest.mark.parametrize("chunks", [(1,), (1, 0), (1, 1, 1)])
def test_chunks_that_do_not_fit_are_refused(chunks):
    with pytest.raises(ArrayError, match="one length of at least 1 for each axis"):
        geometry.check_chunks((5, 5), chunks, 8)


def test_more_blocks_than_numbers_are_refused():
    with pytest.raises(ArrayError, match="choose larger chunks"):
        geometry.grid_shape((10**19, 10), (1, 1))
