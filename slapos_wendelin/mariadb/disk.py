# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a storage node's disk has room for a MariaDB."""

from __future__ import annotations

from slapos_wendelin.disk_space import ROOM_FOR_DATABASE, fault_of
from slapos_wendelin.mariadb.place import Place


def shortage(place: Place) -> str:
    """Return that the disk of the data is full, and what to do; empty when it is not."""
    folder = place.folder if place.folder.exists() else place.partition
    full = fault_of(folder, ROOM_FOR_DATABASE)
    return full and f"{full}, or move the storage to another computer"
