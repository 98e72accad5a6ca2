# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a storage node's disk has room for a MariaDB."""

from __future__ import annotations

from slapos_wendelin import disk_space
from slapos_wendelin.mariadb.place import Place

#: Bytes without which neither the server nor the storage is started: where InnoDB cannot extend its
#: files, it aborts, even when all it has to do is to roll a transaction back.
LEAST = 16 << 20


def shortage(place: Place) -> str:
    """Return that the disk of the data is full, and what to do; empty when it is not."""
    folder = place.folder if place.folder.exists() else place.partition
    full = disk_space.fault_of(folder, LEAST)
    return full and f"{full}, or move the storage to another computer"
