# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of arrays and of their blocks: pure functions over whole numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from slapos_wendelin.neo.blocks import MAXIMUM_BLOCKS
from slapos_wendelin.neo.errors import ArrayError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Bytes that a block holds when the caller does not choose, before compression.
BLOCK_BYTES = 2 * 2**20

#: Largest block, before compression. NEO takes objects below 16 MiB and is best at 2 to 4 MiB.
MAXIMUM_BLOCK_BYTES = 8 * 2**20

Order = Literal["C", "F"]
#: A whole number, also as a float: 1e18.
Length = int | float


def whole_lengths(name: str, lengths: Iterable[Length] | float) -> tuple[int, ...]:
    """Return lengths as whole numbers; `1e18` is welcome as it is in numpy's older habits.

    :raises ArrayError: for a length that is negative or not whole.
    """
    if isinstance(lengths, int | float):
        lengths = (lengths,)
    result = []
    for length in lengths:
        try:
            whole = int(length)
        except (TypeError, ValueError, OverflowError):
            whole = -1
        if whole < 0 or whole != length:
            raise ArrayError(
                f"{name} has the length {length!r}", "give a whole number that is not negative"
            )
        result.append(whole)
    return tuple(result)


def default_chunks(shape: tuple[int, ...], itemsize: int, order: Order) -> tuple[int, ...]:
    """Return the shape of blocks of about `BLOCK_BYTES`.

    A block is long in the axis that is contiguous in memory: the last in C order (whole rows), the
    first in Fortran order (whole columns).
    """
    room = max(1, BLOCK_BYTES // itemsize)
    chunks = [1] * len(shape)
    axes = range(len(shape)) if order == "F" else reversed(range(len(shape)))
    for axis in axes:
        chunks[axis] = max(1, min(shape[axis], room))
        room //= chunks[axis]
    return tuple(chunks)


def check_chunks(shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int) -> None:
    """Refuse blocks that do not fit the array or are too large for one object.

    :raises ArrayError: names the chunks and what would do.
    """
    if len(chunks) != len(shape) or 0 in chunks:
        raise ArrayError(
            f"chunks {chunks} do not fit the shape {shape}",
            "give one length of at least 1 for each axis",
        )
    size = math.prod(chunks) * itemsize
    if size > MAXIMUM_BLOCK_BYTES:
        raise ArrayError(
            f"chunks {chunks} of {itemsize} byte items make blocks of {size / 2**20:.1f} MiB, the"
            f" limit is {MAXIMUM_BLOCK_BYTES // 2**20} MiB",
            "choose chunks of about 2 MiB or leave them out",
        )


def grid_shape(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many blocks lie along each axis.

    :raises ArrayError: when there are more blocks than numbers for them.
    """
    grid = tuple(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))
    if math.prod(grid) > MAXIMUM_BLOCKS:
        raise ArrayError(
            f"an array of shape {shape} in chunks {chunks} has {math.prod(grid)} blocks, the limit"
            f" is {MAXIMUM_BLOCKS}",
            "choose larger chunks",
        )
    return grid


def number_of(place: tuple[int, ...], grid: tuple[int, ...]) -> int | None:
    """Return the number of the block at a place in the grid, None outside of the grid's other axes.

    Numbers run along the last axis first, so that they stay the same when the first axis grows.
    """
    if len(place) != len(grid):
        return None
    number = 0
    for axis, (position, length) in enumerate(zip(place, grid, strict=True)):
        if axis and position >= length:
            return None
        number = number * length + position
    return number


def place_of(number: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    """Return the place in the grid of a block with this number."""
    place = []
    for length in reversed(grid[1:]):
        number, position = divmod(number, length)
        place.append(position)
    if grid:
        place.append(number)
    return tuple(reversed(place))


def block_slices(number: int, shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the part of the array that a block holds."""
    place = place_of(number, grid_shape(shape, chunks))
    return tuple(
        slice(position * chunk, min(length, (position + 1) * chunk))
        for position, chunk, length in zip(place, chunks, shape, strict=True)
    )
