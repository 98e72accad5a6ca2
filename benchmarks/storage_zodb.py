# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The measures of a storage of ZODB, each by a client process of its own."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from persistent.mapping import PersistentMapping
from storage_sizes import (
    BLOCK_BYTES,
    BLOCKS,
    BLOCKS_PER_COMMIT,
    BLOCKS_SIZE,
    CLIENTS,
    COMMIT_SECONDS,
    OBJECTS,
    OBJECTS_SECONDS,
    block_rate,
    wait_for_start,
)

from slapos_wendelin.neo import client
from slapos_wendelin.neo.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Callable

    from persistent import Persistent


def prepare(uri: str) -> None:
    """Make the objects that are changed and read."""

    def make(root: PersistentMapping) -> None:
        root["counters"] = [PersistentMapping(value=0) for _ in range(CLIENTS)]
        root["objects"] = [PersistentMapping(text=f"{n:0100}") for n in range(OBJECTS)]
        root["blocks"] = [Block() for _ in range(BLOCKS)]

    client.run(uri, make)


def commit_for_a_while(uri: str, number: int) -> float:
    """Return how many small changes a client commits in a second."""
    with client.connection(uri) as connection:
        counter = connection.root()["counters"][number]
        counter["value"] += 1
        connection.transaction_manager.commit()
        wait_for_start()
        start = time.perf_counter()
        commits = 0
        while time.perf_counter() - start < COMMIT_SECONDS:
            counter["value"] += 1
            connection.transaction_manager.commit()
            commits += 1
        return commits / (time.perf_counter() - start)


def read_objects(uri: str, _: int) -> float:
    """Return how many small objects a client reads in a second, one by one."""
    with client.connection(uri) as connection:
        objects: list[Persistent] = connection.root()["objects"]
        wait_for_start()
        start = time.perf_counter()
        count = 0
        while count < len(objects) and time.perf_counter() - start < OBJECTS_SECONDS:
            objects[count]._p_activate()  # noqa: SLF001 - public by ZODB's convention
            count += 1
        return count / (time.perf_counter() - start)


def write_blocks(uri: str, _: int) -> float:
    """Return how many megabytes of blocks a client writes in a second, in several commits."""
    contents = [os.urandom(BLOCK_BYTES) for _ in range(BLOCKS)]
    with client.connection(uri) as connection:
        blocks = connection.root()["blocks"]
        wait_for_start()
        start = time.perf_counter()
        for number, (block, content) in enumerate(zip(blocks, contents, strict=True), 1):
            block.data = content
            if number % BLOCKS_PER_COMMIT == 0:
                connection.transaction_manager.commit()
        return BLOCKS_SIZE / (time.perf_counter() - start)


def read_blocks(uri: str, _: int) -> float:
    """Return how many megabytes of blocks a client reads in a second."""
    with client.connection(uri) as connection:
        blocks: list[Block] = connection.root()["blocks"]
        wait_for_start()
        start = time.perf_counter()
        size = sum(len(block.read() or b"") for block in blocks)
        seconds = time.perf_counter() - start
    return block_rate(size, seconds)


MEASURES: dict[str, Callable[[str, int], float]] = {
    "commits": commit_for_a_while,
    "objects": read_objects,
    "write": write_blocks,
    "read": read_blocks,
}
