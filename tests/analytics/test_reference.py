# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays by address, and dask arrays over them."""

from __future__ import annotations

import pickle

import dask.array
import numpy as np
import pytest
from persistent.mapping import PersistentMapping

from slapos_wendelin.neo import client, ndarray
from slapos_wendelin.neo.errors import ArrayError
from slapos_wendelin.neo.reference import ArrayReference, dask_array


def make(uri, name="a", shape=(100, 8), chunks=(30, 8)):
    client.run(uri, lambda root: ndarray.create(root, name, shape, chunks=chunks) and None)
    return ArrayReference(uri, name)


def test_a_reference_can_travel_and_reads_and_writes(file_uri):
    reference = pickle.loads(pickle.dumps(make(file_uri)))  # noqa: S301 - its own
    reference[10:20, 2] = 3
    assert reference[:].sum() == 30
    assert (reference.shape, reference.dtype, reference.chunks, reference.ndim) == (
        (100, 8),
        np.float64,
        (30, 8),
        2,
    )


def test_an_array_in_a_folder_is_found(file_uri):
    def prepare(root):
        root["folder"] = PersistentMapping()
        ndarray.create(root["folder"], "a", 3)

    client.run(file_uri, prepare)
    assert ArrayReference(file_uri, "folder/a").shape == (3,)


@pytest.mark.parametrize("name", ["b", "folder/a"])
def test_an_array_that_is_not_there_is_named(file_uri, name):
    make(file_uri)
    with pytest.raises(ArrayError, match="no array called"):
        _ = ArrayReference(file_uri, name).shape


def test_a_pinned_reference_does_not_see_later_writes(server_uri):
    reference = make(server_uri)
    reference[:] = 1
    pinned = reference.pinned()
    reference[:] = 2
    assert (pinned[0, 0], reference[0, 0]) == (1, 2)
    with pytest.raises(ArrayError, match="without a transaction id"):
        pinned[0, 0] = 5


def test_all_tasks_of_dask_see_one_state(file_uri):
    reference = make(file_uri)
    reference[:] = 1
    whole = dask_array(reference)
    assert whole.chunks == ((30, 30, 30, 10), (8,))
    reference[50:] = 9
    assert whole.sum().compute(scheduler="threads") == 800


def test_dask_workers_read_and_write(server_uri, workers):
    source, target = make(server_uri), make(server_uri, "b")
    values = np.random.default_rng(3).random((100, 8))
    source[:] = values
    doubled = dask.array.store(dask_array(source) * 2, target, lock=False, compute=False)
    workers.client.compute(doubled).result(timeout=240)
    np.testing.assert_array_equal(target[:], values * 2)
