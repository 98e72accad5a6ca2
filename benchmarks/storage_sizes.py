# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much the measures of storages write and read, and how client processes begin together."""

from __future__ import annotations

import sys

from slapos_wendelin.errors import CommandError

#: Seconds for which clients commit one small change after another.
COMMIT_SECONDS = 2.0

#: Clients that commit at the same time.
CLIENTS = 4

#: Small objects that are read one by one, for so many seconds at most.
OBJECTS = 2000
OBJECTS_SECONDS = 10.0

BLOCKS = 32
BLOCK_BYTES = 2 * 2**20
BLOCKS_PER_COMMIT = 4

#: Megabytes of all blocks.
BLOCKS_SIZE = BLOCKS * BLOCK_BYTES / 1e6


def wait_for_start() -> None:
    """In a client process: tell that everything is ready, and begin with the others."""
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("the benchmark has ended")


def block_rate(size: int, seconds: float) -> float:
    """Return the megabytes of blocks that were read in a second; fail when it was not all."""
    if size != BLOCKS * BLOCK_BYTES:
        raise CommandError(f"{size} bytes of blocks were read", "report this with the output")
    return size / 1e6 / seconds
