# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promise: the disk of a storage has space left."""

from __future__ import annotations

import shutil
from pathlib import Path

from slapos_wendelin.mariadb.disk import shortage
from slapos_wendelin.mariadb.place import Place
from slapos_wendelin.promise.base import BrokenPromiseError, Promise

_GIB = 2**30

#: Less than this part of the disk is little, and less than so many bytes.
PART, BYTES = 0.05, _GIB


class RunPromise(Promise):
    """Green while the disk of the data in ``partition`` has 1 GiB left, or one twentieth of it.

    The lesser of the two counts. Where the disk is full, MariaDB ends, and is started again when
    there is room.
    """

    def check(self) -> str:
        """Look at the disk."""
        place = Place(Path(self.getConfig("partition")))
        if full := shortage(place):
            raise BrokenPromiseError(full)
        folder = place.folder if place.folder.exists() else place.partition
        disk = shutil.disk_usage(folder)
        left = f"{disk.free / _GIB:.1f} GiB of {disk.total / _GIB:.1f} GiB"
        if disk.free < min(disk.total * PART, BYTES):
            raise BrokenPromiseError(
                f"only {left} are left on the disk of {place.folder}:"
                " free some, or move the storage to another computer"
            )
        return f"{left} are left"
