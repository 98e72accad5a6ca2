# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said where a disk is full."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

#: What Python, other programs, slapgrid and SQLite say of a full disk.
_SIGNS = (
    *(os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)),
    *("Not enough space for", "database or disk is full"),
)

#: Bytes without which no database is started: SQLite would fail at the first write, and InnoDB
#: aborts where it cannot extend its files, even when it only has to roll a transaction back.
ROOM_FOR_DATABASE = 16 << 20

#: So little space is none: nothing useful can be written.
_NONE = 1 << 20

_REMEDY = "free some, and it goes on by itself"


def with_remedy(brief: str, text: str) -> str:
    """Return an error in brief, with what to do when its full text tells of a full disk."""
    sign = next((each for each in _SIGNS if each in text), None)
    if sign is None:
        return brief
    return f"{brief} ({_REMEDY})" if sign in brief else f"{brief}: {sign} ({_REMEDY})"


def fault_of(folder: Path, least: int = _NONE) -> str:
    """Return what is wrong with the disk of a folder: that it is full; empty when it is not.

    :param least: it is full when fewer bytes than these are left.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    return f"{_SIGNS[0]}: the disk of {folder} is full ({_REMEDY})" if free < least else ""


def storage_shortage(folder: Path) -> str:
    """Return that a storage's disk is full, and what to do; empty when a database has room."""
    full = fault_of(folder, ROOM_FOR_DATABASE)
    return full and f"{full}, or move the storage to another computer"
