# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promise: the disk of a MariaDB has space left."""

from __future__ import annotations

from pathlib import Path

from slapos_wendelin.mariadb.disk import folder_of
from slapos_wendelin.mariadb.place import Place
from slapos_wendelin.promise import disk


class RunPromise(disk.RunPromise):
    """The same for the disk of the data in ``partition``.

    Where the disk is full, MariaDB ends, and is started again when there is room.
    """

    def folder(self) -> Path:
        """Return the folder of the data, or the partition while there is none."""
        return folder_of(Place(Path(self.getConfig("partition"))))
