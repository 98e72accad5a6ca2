# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promise: the disk of a MariaDB has space left."""

from __future__ import annotations

from pathlib import Path

from slapos_wendelin.mariadb.disk import shortage
from slapos_wendelin.mariadb.place import Place
from slapos_wendelin.promise import disk


class RunPromise(disk.RunPromise):
    """The same for the disk of the data in ``partition``.

    Where the disk is full, MariaDB ends, and is started again when there is room.
    """

    def folder(self) -> Path:
        """Return the folder of the data, or the partition while there is none."""
        place = self._place()
        return place.folder if place.folder.exists() else place.partition

    def shortage(self) -> str:
        """Return that the disk is full, and what to do; empty when it is not."""
        return shortage(self._place())

    def _place(self) -> Place:
        """Return where the data is."""
        return Place(Path(self.getConfig("partition")))
