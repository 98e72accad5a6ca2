# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Zarr v3 store for one array kept in ZODB objects."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, Any

from transaction import ThreadTransactionManager
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

from slapos_wendelin.neo.errors import ArrayError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from slapos_wendelin.neo.blocks import Block
    from slapos_wendelin.neo.ndarray import NDArray

METADATA_KEY = "zarr.json"

#: Bytes written in one transaction before they move from memory to ZODB's temporary file.
SAVEPOINT_BYTES = 64 * 2**20


def parse_block_key(key: str) -> tuple[int, ...] | None:
    """Return the place in the grid that a Zarr v3 chunk key names, "c/0/1", else None."""
    head, *places = key.split("/")
    if head != "c" or not all(place.isdecimal() for place in places):
        return None
    return tuple(int(place) for place in places)


def format_block_key(place: tuple[int, ...]) -> str:
    """Return the Zarr v3 chunk key of a place in the grid."""
    return "/".join(("c", *map(str, place)))


def cut(data: bytes, byte_range: ByteRequest | None) -> bytes:
    """Return the part of the data that Zarr asks for."""
    match byte_range:
        case None:
            return data
        case RangeByteRequest(start, end):
            return data[start:end]
        case OffsetByteRequest(offset):
            return data[offset:]
        case SuffixByteRequest(suffix):
            return data[max(0, len(data) - suffix) :]
    message = f"unknown byte range {byte_range!r}"
    raise TypeError(message)


def free_memory(success: bool, blocks: list[Block]) -> None:
    """Forget the data of blocks that ZODB has taken over.

    The writers of ZODB's serializer refer to themselves and to a copy of each object, so their
    copies stay until Python looks for cycles. Two young generations are enough to look at.
    """
    if success:
        for block in blocks:
            block._p_deactivate()  # noqa: SLF001 - public by ZODB's convention
        blocks.clear()
    gc.collect(1)


class BlockStore(Store):
    """Zarr's view of an `NDArray`: its metadata document and its blocks, by key.

    Zarr calls a store from threads of its own. The calling thread waits meanwhile, and a lock
    lets one of Zarr's threads at a time use the ZODB connection of the array. Connections of
    different threads load and store side by side.
    """

    def __init__(self, array: NDArray, *, read_only: bool = False) -> None:
        super().__init__(read_only=read_only)
        self._array = array
        self._lock = threading.Lock()
        self._transaction: object = None
        self._changed: list[Block] = []
        self._unsaved_bytes = 0

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, BlockStore)
            and self._array is other._array
            and self.read_only == other.read_only
        )

    __hash__ = None

    def __repr__(self) -> str:
        oid = self._array._p_oid  # noqa: SLF001 - public by ZODB's convention
        return f"<BlockStore of object {'not stored yet' if oid is None else oid.hex()}>"

    @property
    def supports_writes(self) -> bool:
        """Blocks can be written."""
        return True

    @property
    def supports_deletes(self) -> bool:
        """Blocks can be deleted: they read as the fill value again."""
        return True

    @property
    def supports_listing(self) -> bool:
        """Keys can be listed; this reads every block."""
        return True

    def with_read_only(self, read_only: bool = False) -> BlockStore:
        """Return a store of the same array that may or may not write."""
        return BlockStore(self._array, read_only=read_only)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return what a key stands for, None where nothing was written."""
        data = await asyncio.to_thread(self._load, key)
        return None if data is None else prototype.buffer.from_bytes(cut(data, byte_range))

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return parts of several values, in the order asked for."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Tell whether anything was written under a key."""
        return await asyncio.to_thread(self._load, key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Write the metadata document or a block, in the transaction of the array's connection."""
        self._check_writable()
        await asyncio.to_thread(self._save, key, value.to_bytes())

    async def delete(self, key: str) -> None:
        """Make a block unwritten again."""
        self._check_writable()
        await asyncio.to_thread(self._delete, key)

    async def list(self) -> AsyncIterator[str]:
        """Yield the keys under which something is written."""
        for key in await asyncio.to_thread(self._keys):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys that begin with a prefix."""
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below a prefix."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        async for name in self._names(folder):
            yield name

    async def _names(self, folder: str) -> AsyncIterator[str]:
        """Yield each name below a folder once."""
        seen = set()
        async for key in self.list_prefix(folder):
            name = key.removeprefix(folder).split("/", 1)[0]
            if name not in seen:
                seen.add(name)
                yield name

    def _number(self, key: str) -> int | None:
        """Return the number of the block that a key names, None when it can name none."""
        place = parse_block_key(key)
        return None if place is None else self._array.block_number(place)

    def _load(self, key: str) -> bytes | None:
        """Read the metadata document or a block."""
        with self._lock:
            if key == METADATA_KEY:
                return self._array.metadata
            number = self._number(key)
            block = None if number is None else self._array.index.get(number)
            return None if block is None else block.read()

    def _save(self, key: str, data: bytes) -> None:
        """Write the metadata document or a block."""
        with self._lock:
            self._check_transaction_manager()
            if key == METADATA_KEY:
                self._array.set_metadata(data)
                return
            number = self._number(key)
            if number is None:
                raise ArrayError(
                    f"an array in ZODB has no place for the key {key!r}",
                    "keep groups of arrays in persistent mappings, one array for each entry",
                )
            self._change(self._array.index.allocate(number), data)

    def _delete(self, key: str) -> None:
        """Forget the data of a block."""
        with self._lock:
            self._check_transaction_manager()
            number = self._number(key)
            block = None if number is None else self._array.index.get(number)
            if block is not None and block.data is not None:
                self._change(block, None)

    def _change(self, block: Block, data: bytes | None) -> None:
        """Give a block new data; move the transaction's data out of memory when there is much."""
        block.data = data
        connection = self._array._p_jar  # noqa: SLF001 - public by ZODB's convention
        if connection is None:
            return
        current = connection.transaction_manager.get()
        if current is not self._transaction:
            self._transaction = current
            self._changed = []
            self._unsaved_bytes = 0
            current.addAfterCommitHook(free_memory, (self._changed,))
        self._changed.append(block)
        self._unsaved_bytes += len(data or b"")
        if self._unsaved_bytes >= SAVEPOINT_BYTES:
            current.savepoint(optimistic=True)
            free_memory(True, self._changed)
            self._unsaved_bytes = 0

    def _keys(self) -> list[Any]:
        """Return all keys under which something is written."""
        with self._lock:
            keys = [] if self._array.metadata is None else [METADATA_KEY]
            keys += [
                format_block_key(self._array.block_place(number))
                for number in self._array.index.written()
            ]
            return keys

    def _check_transaction_manager(self) -> None:
        """Refuse a connection that asks for a transaction in each thread anew.

        Zarr's threads would join a transaction of their own that nobody commits. ZODB's default is
        the transaction of the thread that opened the connection, which is right.
        """
        connection = self._array._p_jar  # noqa: SLF001 - public by ZODB's convention
        manager = None if connection is None else connection.transaction_manager
        if isinstance(manager, ThreadTransactionManager):
            raise ArrayError(
                "the connection of this array has another transaction in each thread",
                "open it with slapos_wendelin.neo.client.connection(uri), with db.open(), or with"
                " db.open(transaction.TransactionManager())",
            )
