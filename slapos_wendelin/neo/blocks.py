# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The persistent objects that hold the blocks of an array.

An index leads from the number of a block to the block: a B-tree of pages, each a tuple of
`PAGE_SIZE` blocks that exist before anything is written to them. A writer therefore changes its
own blocks and nothing else, so writers of different blocks never conflict. Only adding a page
changes the tree, once for `PAGE_SIZE` blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from BTrees.LOBTree import LOBTree
from persistent import Persistent

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Blocks in a page. With 2 MiB blocks a page stands for 512 MiB and its record takes about 8 KiB.
PAGE_SIZE = 256

#: Blocks that exist from the start, whatever is written. 16384 of 2 MiB are 32 GiB.
PREALLOCATED_BLOCKS = 16384

#: Numbers of blocks are 64-bit signed integers, the keys of the tree.
MAXIMUM_BLOCKS = 2**63 - 1


class Block(Persistent):
    """The encoded bytes of one chunk, or None where nothing was written."""

    data: bytes | None = None

    def __getstate__(self) -> bytes | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the bytes themselves: a record is then its data and few bytes more."""
        return self.data

    def __setstate__(self, state: bytes | None) -> None:
        """Take the bytes from a record."""
        self.data = state

    def read(self) -> bytes | None:
        """Return the bytes and forget them again, unless they are still to be committed."""
        data = self.data
        self._p_deactivate()
        return data


class Page(Persistent):
    """Blocks of neighbouring numbers. A page never changes; a longer one can take its place."""

    def __init__(self, blocks: tuple[Block, ...]) -> None:
        self.blocks = blocks


class BlockIndex(Persistent):
    """All blocks of an array by number."""

    def __init__(self, block_count: int) -> None:
        """Make the blocks from 0 to `block_count`, up to `PREALLOCATED_BLOCKS`."""
        self.pages = LOBTree()
        for first in range(0, min(block_count, PREALLOCATED_BLOCKS), PAGE_SIZE):
            self._add_page(first // PAGE_SIZE, min(PAGE_SIZE, block_count - first))

    def get(self, number: int) -> Block | None:
        """Return a block, or None when no page has it yet."""
        page_number, place = divmod(number, PAGE_SIZE)
        page = self.pages.get(page_number)
        if page is None or place >= len(page.blocks):
            return None
        return page.blocks[place]

    def allocate(self, number: int) -> Block:
        """Return a block; make a whole page of blocks when there is none for this number.

        Two transactions that make the same page conflict, and the later one has to be repeated.
        """
        block = self.get(number)
        if block is not None:
            return block
        page_number, place = divmod(number, PAGE_SIZE)
        return self._add_page(page_number, PAGE_SIZE).blocks[place]

    def written(self) -> Iterator[int]:
        """Yield the numbers of the blocks that hold data. Reads every block of every page."""
        for page_number, page in self.pages.items():
            for place, block in enumerate(page.blocks):
                if block.read() is not None:
                    yield page_number * PAGE_SIZE + place

    def _add_page(self, page_number: int, length: int) -> Page:
        """Add a page, or lengthen the one that is there; existing blocks stay the same objects."""
        existing = self.pages.get(page_number)
        blocks = () if existing is None else existing.blocks
        page = Page(blocks + tuple(Block() for _ in range(length - len(blocks))))
        self.pages[page_number] = page
        return page
