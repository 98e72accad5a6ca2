# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays in a database."""

from __future__ import annotations

import numpy as np
import pytest
import transaction
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from persistent.mapping import PersistentMapping
from ZODB.MappingStorage import DB
from ZODB.POSException import ConflictError

from slapos_wendelin.neo import blocks, client, ndarray
from slapos_wendelin.neo.errors import ArrayError


@pytest.fixture
def root(file_uri):
    with client.connection(file_uri) as connection:
        yield connection.root()


def commit(root):
    root._p_jar.transaction_manager.commit()


def abort(root):
    root._p_jar.transaction_manager.abort()


def test_what_is_written_is_read_by_another_connection(uri):
    values = np.arange(1000.0).reshape(100, 10)
    with client.connection(uri) as connection:
        array = ndarray.create(connection.root(), "a", (100, 10), chunks=(7, 4))
        array[:] = values
        connection.transaction_manager.commit()
    with client.connection(uri) as connection:
        array = ndarray.open_array(connection.root(), "a")
        assert (array.shape, array.dtype, array.chunks) == ((100, 10), np.float64, (7, 4))
        np.testing.assert_array_equal(array[:], values)
        np.testing.assert_array_equal(array[13:57, 3], values[13:57, 3])


def test_nothing_is_kept_of_an_aborted_transaction(root):
    array = ndarray.create(root, "a", 10, int, chunks=3)
    array[:] = 5
    commit(root)
    array[2:8] = 7
    array.resize(20)
    abort(root)
    assert array.shape == (10,)
    np.testing.assert_array_equal(array[:], np.full(10, 5))


def test_an_array_made_in_an_aborted_transaction_is_not_there(root):
    ndarray.create(root, "a", 10)
    abort(root)
    with pytest.raises(ArrayError, match="no array called 'a'"):
        ndarray.open_array(root, "a")


def test_1e18_rows_take_no_space_until_written(root):
    array = ndarray.create(root, "a", (1e18, 2), float, order="F")
    assert array.nbytes == 16 * 10**18
    array[10**17 : 10**17 + 3, 1] = 7
    commit(root)
    np.testing.assert_array_equal(
        array[10**17 - 1 : 10**17 + 4, 1], np.array([0, 7, 7, 7, 0], float)
    )
    assert sum(1 for _ in array.index.written()) == 1


def test_items_of_a_block_in_fortran_order_lie_by_columns(root):
    array = ndarray.create(root, "a", (4, 3), "int8", order="F", chunks=(4, 3))
    array[:] = np.arange(12).reshape(4, 3)
    (codec,) = array.zarr.filters
    assert codec.order == (1, 0)
    np.testing.assert_array_equal(array[:], np.arange(12).reshape(4, 3))


def test_items_that_were_not_written_are_the_fill_value(root):
    array = ndarray.create(root, "a", 10, int, chunks=5, fill_value=-1)
    array[0] = 4
    np.testing.assert_array_equal(array[:], [4] + [-1] * 9)
    assert [array.is_block_written(number) for number in range(2)] == [True, False]


def test_blocks_are_visited_in_order(root):
    array = ndarray.create(root, "a", (5, 4), int, chunks=(2, 4))
    for number in range(array.block_count):
        array.write_block(number, number)
    commit(root)
    visited = [(place[0].start, values[0, 0]) for place, values in array.blocks()]
    assert visited == [(0, 0), (2, 1), (4, 2)]
    with pytest.raises(ArrayError, match="block 3 of an array that has 3 blocks"):
        array.read_block(3)


def test_the_first_axis_can_grow_and_shrink(root):
    array = ndarray.create(root, "a", (300, 2), int, chunks=(1, 2), fill_value=9)
    array[:] = 1
    commit(root)
    array.resize((600, 2))
    array[550:] = 2
    commit(root)
    assert array[:].sum() == 300 * 2 + 250 * 2 * 9 + 50 * 2 * 2
    array.resize((10, 2))
    array.resize((20, 2))
    assert array[:].sum() == 10 * 2 + 10 * 2 * 9


def test_another_axis_cannot_change(root):
    array = ndarray.create(root, "a", (3, 2), int)
    with pytest.raises(ArrayError, match="only the first axis"):
        array.resize((3, 4))


def test_libraries_can_take_the_zarr_array(root):
    array = ndarray.create(root, "a", (6, 2), int, chunks=(2, 2))
    assert isinstance(array.zarr, zarr.Array)
    array.zarr.append(np.ones((3, 2), int))
    array.zarr.attrs["unit"] = "metre"
    commit(root)
    assert array.shape == (9, 2)
    assert array.block_count == 5
    np.testing.assert_array_equal(array[6:], np.ones((3, 2)))
    assert array.zarr.attrs["unit"] == "metre"
    assert array.zarr.nchunks_initialized == 2


def test_a_name_is_taken_once(root):
    ndarray.create(root, "a", 3)
    with pytest.raises(ArrayError, match="NDArray called 'a' already"):
        ndarray.create(root, "a", 3)


def test_opening_what_is_not_there_tells_what_is(root):
    ndarray.create(root, "measures", 3)
    root["folder"] = PersistentMapping()
    with pytest.raises(ArrayError, match=r"no array called 'measure'.*arrays here: measures"):
        ndarray.open_array(root, "measure")
    with pytest.raises(ArrayError, match="'folder' is a PersistentMapping"):
        ndarray.open_array(root, "folder")


@pytest.mark.parametrize("dtype", [object, "no type", np.dtype([("x", object)])])
def test_items_without_a_size_are_refused(root, dtype):
    with pytest.raises(ArrayError, match="choose"):
        ndarray.create(root, "a", 3, dtype)
    assert "a" not in root


def test_an_order_that_is_none_is_refused(root):
    with pytest.raises(ArrayError, match='choose "C" or "F"'):
        ndarray.create(root, "a", 3, order="A")


def test_chunks_too_large_are_refused_before_anything_is_made(root):
    with pytest.raises(ArrayError, match="limit is 8 MiB"):
        ndarray.create(root, "a", (10**6, 64), chunks=(10**6, 64))
    assert "a" not in root


def test_the_default_transaction_of_zodb_will_do():
    database = DB()
    connection = database.open()
    array = ndarray.create(connection.root(), "a", 3, int)
    array[0] = 1
    transaction.commit()
    array[1] = 2
    transaction.commit()
    array[2] = 3
    transaction.abort()
    np.testing.assert_array_equal(array[:], [1, 2, 0])
    connection.close()
    database.close()


def test_a_transaction_for_each_thread_is_refused():
    database = DB()
    connection = database.open(transaction.manager)
    with pytest.raises(ArrayError, match=r"client\.connection"):
        ndarray.create(connection.root(), "a", 3, int)[0] = 1
    transaction.abort()
    database.close()


def test_writers_of_different_blocks_do_not_conflict(uri):
    client.run(uri, lambda root: ndarray.create(root, "a", 40, int, chunks=1) and None)
    with client.connection(uri) as one, client.connection(uri) as other:
        for step in range(10):
            one.root()["a"].write_block(2 * step, 1)
            other.root()["a"].write_block(2 * step + 1, 2)
            other.transaction_manager.commit()
            one.transaction_manager.commit()
    total = client.run(uri, lambda root: int(root["a"][:].sum()))
    assert total == 30


def test_writers_of_one_block_conflict(file_uri):
    client.run(file_uri, lambda root: ndarray.create(root, "a", 4, int) and None)
    with client.connection(file_uri) as one, client.connection(file_uri) as other:
        one.root()["a"][0] = 1
        other.root()["a"][1] = 1
        one.transaction_manager.commit()
        with pytest.raises(ConflictError):
            other.transaction_manager.commit()


def test_writers_that_need_new_places_conflict_once(file_uri, monkeypatch):
    monkeypatch.setattr(blocks, "PREALLOCATED_BLOCKS", 0)
    client.run(file_uri, lambda root: ndarray.create(root, "a", 1000, int, chunks=1) and None)
    with client.connection(file_uri) as one, client.connection(file_uri) as other:
        one.root()["a"][0] = 1
        one.transaction_manager.commit()
        other.root()["a"][1] = 1
        with pytest.raises(ConflictError):
            other.transaction_manager.commit()
        other.transaction_manager.abort()
        one.root()["a"][2] = 1
        other.root()["a"][3] = 1
        one.transaction_manager.commit()
        other.transaction_manager.commit()
        other.root()["a"].allocate(range(256, 512))
        other.transaction_manager.commit()
        one.transaction_manager.begin()
        one.root()["a"][300] = 1
        other.root()["a"][301] = 1
        one.transaction_manager.commit()
        other.transaction_manager.commit()


def test_memory_of_blocks_is_given_back(file_uri):
    with client.connection(file_uri) as connection:
        array = ndarray.create(connection.root(), "a", (40, 2**18), float, chunks=(1, 2**18))
        values = np.random.default_rng(0).random(2**18)
        for number in range(40):
            array.write_block(number, values)
        assert array.index.get(0)._p_changed is None
        connection.transaction_manager.commit()
        assert all(array.index.get(n)._p_changed is None for n in range(40))
        for _ in array.blocks():
            pass
        assert all(array.index.get(n)._p_changed is None for n in range(40))
        assert connection._cache.total_estimated_size < 2**20


regions = st.tuples(st.integers(0, 29), st.integers(0, 29), st.integers(0, 8), st.integers(0, 8))
actions = st.one_of(
    st.tuples(st.just("write"), regions, st.integers(-5, 5)),
    st.tuples(st.just("block"), st.integers(0, 29), st.integers(-5, 5)),
    st.tuples(st.just("resize"), st.integers(1, 40), st.none()),
    st.tuples(st.sampled_from(["commit", "abort", "reopen", "savepoint"]), st.none(), st.none()),
)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 8)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from(["C", "F"]),
    st.lists(actions, max_size=20),
)
def test_an_array_is_what_numpy_says_whatever_happens(shape, chunks, order, steps):
    database = DB()
    connection = database.open(transaction.TransactionManager())
    array = ndarray.create(connection.root(), "a", shape, int, chunks=chunks, order=order)
    commit(connection.root())
    expected = np.zeros(shape, int)
    committed = expected.copy()
    for action, where, value in steps:
        match action:
            case "write":
                rows, columns = slice(*sorted(where[:2])), slice(*sorted(where[2:]))
                array[rows, columns] = value
                expected[rows, columns] = value
            case "block":
                number = where % array.block_count
                array.write_block(number, value)
                expected[array.block_slices(number)] = value
            case "resize":
                array.resize((where, shape[1]))
                longer = np.zeros((where, shape[1]), int)
                kept = min(where, len(expected))
                longer[:kept] = expected[:kept]
                expected = longer
            case "commit":
                commit(connection.root())
                committed = expected.copy()
            case "savepoint":
                connection.transaction_manager.savepoint()
            case _:
                abort(connection.root())
                expected = committed.copy()
                if action == "reopen":
                    connection.close()
                    connection = database.open(transaction.TransactionManager())
                    array = ndarray.open_array(connection.root(), "a")
        assert array.shape == expected.shape
        np.testing.assert_array_equal(array[:], expected)
    abort(connection.root())
    database.close()
