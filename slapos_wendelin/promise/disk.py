# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promise: the disk of a storage has space left."""

from __future__ import annotations

import shutil
from pathlib import Path

from slapos_wendelin.disk_space import storage_shortage
from slapos_wendelin.promise.base import BrokenPromiseError, Promise

_GIB = 1 << 30

#: Less than this part of the disk is little, and less than so many bytes.
PART, BYTES = 0.05, _GIB


class RunPromise(Promise):
    """Green while the disk of ``folder`` has 1 GiB left, or one twentieth of it.

    The lesser of the two counts.
    """

    def folder(self) -> Path:
        """Return the folder of which the disk counts."""
        return Path(self.getConfig("folder"))

    def check(self) -> str:
        """Look at the disk."""
        folder = self.folder()
        if full := storage_shortage(folder):
            raise BrokenPromiseError(full)
        disk = shutil.disk_usage(folder)
        left = f"{disk.free / _GIB:.1f} GiB of {disk.total / _GIB:.1f} GiB"
        if disk.free < min(disk.total * PART, BYTES):
            raise BrokenPromiseError(
                f"only {left} are left on the disk of {folder}:"
                " free some, or move the storage to another computer"
            )
        return f"{left} are left"
