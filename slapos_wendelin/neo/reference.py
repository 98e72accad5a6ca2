# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An array by address: what dask sends to its workers instead of the array itself.

Tasks read with `dask_array(ArrayReference(uri, "measures"))`; results are written with
`dask.array.store(result, ArrayReference(uri, "results"), lock=False)`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from slapos_wendelin.neo import client
from slapos_wendelin.neo.errors import ArrayError
from slapos_wendelin.neo.ndarray import NDArray, open_array

if TYPE_CHECKING:
    from collections.abc import Callable

    import dask.array
    import numpy as np
    from numpy.typing import ArrayLike
    from persistent.mapping import PersistentMapping


@dataclasses.dataclass(frozen=True)
class ArrayReference:
    """Where an array is. Each use opens a connection of this process and is one transaction.

    Reads and writes are tried again while storage is away, as `client.run` does.

    :param uri: address of the database.
    :param name: name of the array in the root of the database; "folder/name" for an array in a
        persistent mapping that the root holds.
    :param at: a transaction id: read the array as it was then. Such a reference cannot write.
    :param time_limit: seconds for which one read or write is tried again.
    """

    uri: str
    name: str
    at: bytes | None = None
    time_limit: float = client.TIME_LIMIT

    def find(self, root: PersistentMapping) -> NDArray:
        """Return the array in an open database.

        :raises ArrayError: when it is not there.
        """
        *folders, name = self.name.split("/")
        place = root
        for folder in folders:
            place = place.get(folder, {})
        return open_array(place, name)

    def call(self, function: Callable[[NDArray], Any]) -> Any:
        """Call a function with the array in a transaction; it may be called again on failures."""
        return client.run(
            self.uri,
            lambda root: function(self.find(root)),
            at=self.at,
            time_limit=self.time_limit,
        )

    def pinned(self) -> ArrayReference:
        """Return a reference to the array as it is at this moment, whoever writes later."""
        at = client.last_transaction(self.uri, time_limit=self.time_limit)
        return dataclasses.replace(self, at=at)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis, in items."""
        return self.call(lambda array: array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the items."""
        return self.call(lambda array: array.dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Length of a block along each axis, in items."""
        return self.call(lambda array: array.chunks)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.call(lambda array: array.ndim)

    def __getitem__(self, selection: Any) -> Any:
        """Read a part into memory."""
        return self.call(lambda array: array[selection])

    def __setitem__(self, selection: Any, values: ArrayLike) -> None:
        """Write a part and commit.

        :raises ArrayError: when this is a reference to an earlier state.
        """
        if self.at is not None:
            raise ArrayError(
                f"{self.name!r} is referred to as it was at {self.at.hex()}",
                "write by a reference without a transaction id",
            )
        self.call(lambda array: array.__setitem__(selection, values))


def dask_array(source: ArrayReference) -> dask.array.Array:
    """Return a dask array over an array in NEO: one task reads one block on a worker.

    A reference that is not pinned is pinned first, so that all tasks see one state of the array.
    """
    import dask.array  # noqa: PLC0415 - only callers of this function need dask

    pinned = source if source.at is not None else source.pinned()
    return dask.array.from_array(
        pinned,
        chunks=pinned.chunks,  # pyright: ignore[reportArgumentType] (any form of chunks is taken)
        name=False,
        asarray=False,
        lock=False,
        fancy=False,
    )
