# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What slapformat has given to a partition must be so before anything runs in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from slapos_wendelin.errors import WendelinError

#: The mode of a partition's folder.
MODE = 0o750


class PartitionError(WendelinError):
    """The folder of a partition is not as slapformat makes it."""


def check_partition(folder: Path) -> None:
    """Raise PartitionError when a partition's folder could be used by others than its user.

    As root, a partition has a user that is not root and that no other partition has.
    """
    try:
        found = folder.lstat()
    except OSError as error:
        raise PartitionError(
            f"the partition {folder} cannot be used: {error.strerror}", _remedy(folder)
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise PartitionError(f"the partition {folder} is no folder", _remedy(folder))
    mode = stat.S_IMODE(found.st_mode)
    if mode != MODE:
        raise PartitionError(f"the mode of {folder} is {mode:04o}, not {MODE:04o}", _remedy(folder))
    if os.geteuid() == 0:
        _check_user(folder, found)
    elif found.st_uid != os.geteuid():
        raise PartitionError(
            f"{folder} belongs to the user {found.st_uid}, and this is user {os.geteuid()}",
            "run the agent as root, or format the computer as this user",
        )


def _check_user(folder: Path, found: os.stat_result) -> None:
    """Raise PartitionError unless a partition has a user of its own."""
    if found.st_uid == 0 or found.st_gid == 0:
        raise PartitionError(f"{folder} belongs to root", _remedy(folder))
    for other in folder.parent.iterdir():
        try:
            is_shared = other != folder and other.lstat().st_uid == found.st_uid
        except OSError:
            continue
        if is_shared and (other / ".slapos-resource").exists():
            raise PartitionError(
                f"{folder.name} and {other.name} belong to the same user", _remedy(folder)
            )


def _remedy(folder: Path) -> str:
    """Return what makes the folder right."""
    return f"let root run `slapos node format --now` on this computer; it makes {folder.name} anew"
