# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory the servers of a computer's storage nodes may use for their buffers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

#: The part of the memory that all storage nodes of a computer have for their buffers together.
_PART = 4

#: The least that a server is given, in bytes.
LEAST = 64 * 2**20

_MIB = 2**20

#: Files of a control group's folder that hold its limit, of versions 2 and 1.
_LIMITS = ("memory.max", "memory.limit_in_bytes")


def buffer_size(share: int, memory: int | None = None) -> int:
    """Return the size of a server's buffers, in bytes.

    :param share: how many storage nodes there are on the computer.
    :param memory: what there is for all programs; this computer's unless given.
    """
    total = usable_memory() if memory is None else memory
    return max(LEAST, total // _PART // max(share, 1) // _MIB * _MIB)


def usable_memory(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return how much memory this computer has, or the limit of the control group if it is less.

    :param own: the file that tells the control groups of this process.
    :param root: where their file system is.
    """
    return min([psutil.virtual_memory().total, *_limits(own, root)])


def _limits(own: Path, root: Path) -> Iterator[int]:
    """Yield the limits of this process's control groups and of those that they are in."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        # In a container the path may be that outside of it, of which only the top is seen.
        folder = top / path.lstrip("/")
        for each in (folder, *folder.parents):
            if not each.is_relative_to(top):
                break
            yield from _limit(each)


def _limit(folder: Path) -> Iterator[int]:
    """Yield the limit of one control group, if it has one."""
    for name in _LIMITS:
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            yield int(text)
