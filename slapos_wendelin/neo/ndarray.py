# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays larger than any machine: a Zarr v3 array whose blocks are ZODB objects.

    with client.connection(uri) as connection:
        array = ndarray.create(connection.root(), "measures", (1e9, 2), "float64")
        array[:1000] = 1.5
        connection.transaction_manager.commit()

What is written belongs to the transaction of the connection. `NDArray.zarr` is the Zarr array, for
libraries that take one.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from persistent import Persistent

from slapos_wendelin.neo.blocks import BlockIndex
from slapos_wendelin.neo.errors import ArrayError
from slapos_wendelin.neo.geometry import (
    block_slices,
    check_chunks,
    default_chunks,
    grid_shape,
    number_of,
    place_of,
    whole_lengths,
)
from slapos_wendelin.neo.store import BlockStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, MutableMapping

    from numpy.typing import ArrayLike, DTypeLike

    from slapos_wendelin.neo.geometry import Length, Order


class NDArray(Persistent):
    """An array of fixed-size items. Make one with `create`, find it again with `open_array`."""

    #: Zarr's document, `zarr.json`: shape, type, chunks, codecs, attributes.
    metadata: bytes | None = None

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        chunks: tuple[int, ...],
        order: Order,
        fill_value: Any,
    ) -> None:
        #: Blocks along each axis. All but the first are part of the numbers of blocks.
        self.grid = grid_shape(shape, chunks)
        self.index = BlockIndex(math.prod(self.grid))
        filters = []
        if order == "F" and len(shape) > 1:
            filters.append(zarr.codecs.TransposeCodec(order=tuple(reversed(range(len(shape))))))
        zarr.create_array(
            BlockStore(self),
            shape=shape,
            dtype=dtype,
            chunks=chunks,
            filters=filters,
            compressors=zarr.codecs.BloscCodec(cname="lz4", clevel=1),
            fill_value=fill_value,
            zarr_format=3,
        )

    def __repr__(self) -> str:
        return f"<NDArray shape={self.shape} dtype={self.dtype} chunks={self.chunks}>"

    @property
    def zarr(self) -> zarr.Array[Any]:
        """The Zarr array, opened again when its metadata changed or a transaction was aborted."""
        opened = getattr(self, "_v_opened", None)
        if opened is None or opened[0] != self.metadata:
            opened = (self.metadata, zarr.open_array(BlockStore(self), mode="r+", zarr_format=3))
            self._v_opened = opened
        return opened[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis, in items."""
        return self.zarr.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the items."""
        return self.zarr.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Length of a block along each axis, in items."""
        return self.zarr.chunks

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.grid)

    @property
    def nbytes(self) -> int:
        """Bytes of all items, written or not, before compression."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def block_count(self) -> int:
        """Number of blocks, written or not."""
        return math.prod(self.grid)

    def __len__(self) -> int:
        """Return the length of the first axis."""
        return self.shape[0]

    def __getitem__(self, selection: Any) -> Any:
        """Read a part into memory, as numpy's basic indexing names it."""
        return self.zarr[selection]

    def __setitem__(self, selection: Any, values: ArrayLike) -> None:
        """Write a part. It is kept when the transaction commits."""
        self.zarr[selection] = values

    def set_metadata(self, document: bytes) -> None:
        """Take a new document from Zarr, which writes one when the array or its attributes change.

        :raises ArrayError: when an axis other than the first has got another length.
        """
        metadata = json.loads(document)
        shape = tuple(metadata["shape"])
        chunks = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
        grid = grid_shape(shape, chunks)
        if grid[1:] != self.grid[1:]:
            raise _other_axis_error(shape)
        self.grid = grid
        self.metadata = document

    def block_number(self, place: tuple[int, ...]) -> int | None:
        """Return the number of the block at a place in the grid of blocks."""
        return number_of(place, self.grid)

    def block_place(self, number: int) -> tuple[int, ...]:
        """Return the place in the grid of a block."""
        return place_of(number, self.grid)

    def block_slices(self, number: int) -> tuple[slice, ...]:
        """Return the part of the array that a block holds.

        :raises ArrayError: when the array has no such block.
        """
        if not 0 <= number < self.block_count:
            raise ArrayError(
                f"block {number} of an array that has {self.block_count} blocks",
                "number blocks from 0",
            )
        return block_slices(number, self.shape, self.chunks)

    def is_block_written(self, number: int) -> bool:
        """Tell whether a block holds data; others read as the fill value."""
        block = self.index.get(number)
        return block is not None and block.read() is not None

    def read_block(self, number: int) -> np.ndarray[Any, Any]:
        """Read one block into memory."""
        return np.asarray(self.zarr[self.block_slices(number)])

    def write_block(self, number: int, values: ArrayLike) -> None:
        """Write one block. Writing the same again is harmless, so a repeated transaction is too."""
        slices = self.block_slices(number)
        shape = tuple(part.stop - part.start for part in slices)
        self.zarr[slices] = np.broadcast_to(np.asarray(values), shape)

    def allocate(self, numbers: Iterable[int]) -> None:
        """Make places for blocks ahead of writing them.

        Arrays of up to `PREALLOCATED_BLOCKS` blocks need none of this. In larger ones the first
        write to each `PAGE_SIZE` blocks makes places for them, and writers that do so at the same
        time conflict: one call of this before many writers start spares them the retries.
        """
        for number in numbers:
            self.index.allocate(number)

    def blocks(
        self, numbers: Iterable[int] | None = None
    ) -> Iterator[tuple[tuple[slice, ...], np.ndarray[Any, Any]]]:
        """Yield the place and the values of blocks, one at a time in memory."""
        for number in range(self.block_count) if numbers is None else numbers:
            yield self.block_slices(number), self.read_block(number)

    def resize(self, shape: Iterable[Length] | Length) -> None:
        """Make the first axis longer or shorter. What a shorter array loses is gone.

        Zarr itself keeps what a block has beyond the end and shows it when the array grows again.

        :raises ArrayError: when another axis changes: its length is part of every block's number.
        """
        lengths = whole_lengths("shape", shape)
        if lengths[1:] != self.shape[1:] or len(lengths) != self.ndim or not lengths:
            raise _other_axis_error(lengths)
        grid_shape(lengths, self.chunks)
        end_of_block = -(-lengths[0] // self.chunks[0]) * self.chunks[0]
        if lengths[0] < self.shape[0]:
            self.zarr[lengths[0] : min(end_of_block, self.shape[0])] = self.zarr.fill_value
        self.zarr.resize(lengths)


def create(
    root: MutableMapping[str, Any],
    name: str,
    shape: Iterable[Length] | Length,
    dtype: DTypeLike = float,
    *,
    order: Order = "C",
    chunks: Iterable[Length] | Length | None = None,
    fill_value: Any = 0,
) -> NDArray:
    """Make an array and put it in a persistent mapping. It is kept when the transaction commits.

    :param root: the root of a database or any persistent mapping in it.
    :param name: where in the mapping; nothing may be there.
    :param shape: length of each axis, in items.
    :param order: "C" for blocks of rows, "F" for blocks of columns; the items of a block lie in
        this order too.
    :param chunks: length of a block along each axis; about 2 MiB a block when left out.
    :param fill_value: what items are where nothing was written.
    :raises ArrayError: when the name is taken, or for a shape, type or chunks that cannot be.
    """
    if name in root:
        raise ArrayError(
            f"there is a {type(root[name]).__name__} called {name!r} already",
            "choose another name, open it, or delete it first",
        )
    if order not in {"C", "F"}:
        raise ArrayError(f"order is {order!r}", 'choose "C" or "F"')
    item_type = _item_type(dtype)
    lengths = whole_lengths("shape", shape)
    block = (
        default_chunks(lengths, item_type.itemsize, order)
        if chunks is None
        else whole_lengths("chunks", chunks)
    )
    check_chunks(lengths, block, item_type.itemsize)
    root[name] = array = NDArray(lengths, item_type, block, order, fill_value)
    connection = getattr(root, "_p_jar", None)
    if connection is not None:
        # An array that belongs to a connection can move what is written out of memory.
        connection.add(array)
    return array


def open_array(root: MutableMapping[str, Any], name: str) -> NDArray:
    """Return the array that a persistent mapping has under a name.

    :raises ArrayError: when nothing or something else is there.
    """
    array = root.get(name)
    if array is None:
        names = sorted(key for key, value in root.items() if isinstance(value, NDArray))
        raise ArrayError(
            f"there is no array called {name!r}",
            f"arrays here: {', '.join(names)}" if names else "no array was made here yet",
        )
    if not isinstance(array, NDArray):
        raise ArrayError(
            f"{name!r} is a {type(array).__name__}, not an array", "choose another name"
        )
    return array


def _other_axis_error(shape: tuple[int, ...]) -> ArrayError:
    """Return the error for a change that would give blocks other numbers."""
    return ArrayError(
        f"the array cannot get the shape {shape}",
        "only the first axis can change its length; copy to a new array for the others",
    )


def _item_type(dtype: DTypeLike) -> np.dtype[Any]:
    """Return a numpy type whose items are bytes of fixed size and meaning."""
    try:
        item_type = np.dtype(dtype)
    except TypeError as error:
        raise ArrayError(f"{dtype!r} is no type of items", "choose a numpy type") from error
    if item_type.hasobject or item_type.itemsize == 0:
        raise ArrayError(
            f"items of type {item_type} have no fixed size",
            "choose numbers, times or strings of fixed length",
        )
    return item_type
