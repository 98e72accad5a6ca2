# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the file system of the partitions keeps quotas; slapos.core and the agent set none."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
#: The options by which ext4 and XFS tell that the quotas of users or projects are kept.
_OPTIONS = {"quota", "usrquota", "uquota", "uqnoenforce", "prjquota", "pquota", "pqnoenforce"}
#: In mountinfo: the mount point, and the options of the file system after the dash.
_MOUNT_POINT, _SUPER_OPTIONS = 4, 3


@dataclass(frozen=True)
class Quotas:
    """What is known of the quotas of a file system."""

    mount_point: str
    are_kept: bool

    def __str__(self) -> str:
        """Return it as people read it."""
        if self.are_kept:
            return f"as the owner of the file system at {self.mount_point} has set them"
        return f"none: the file system at {self.mount_point} keeps none"


def quotas_of(folder: Path, mounts: Path = MOUNTS) -> Quotas:
    """Return what the file system of a folder says of quotas."""
    path = os.path.realpath(folder)
    found = Quotas("/", are_kept=False)
    for line in mounts.read_text().splitlines():
        mount, _, system = line.partition(" - ")
        point = _unescaped(mount.split()[_MOUNT_POINT])
        # Of several mounts at one place the last one is seen.
        if len(point) >= len(found.mount_point) and _is_below(path, point):
            options = re.split(r"[,=]", system.split(None, _SUPER_OPTIONS)[-1])
            is_journaled = "usrjquota" in options
            found = Quotas(point, are_kept=is_journaled or bool(_OPTIONS.intersection(options)))
    return found


def _is_below(path: str, point: str) -> bool:
    """Return whether a path is a folder or below it."""
    return path == point or path.startswith(point.rstrip("/") + "/")


def _unescaped(text: str) -> str:
    """Return a path of mountinfo, where spaces and the like are octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
