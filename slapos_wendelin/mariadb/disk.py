# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a storage node's disk has room for a MariaDB."""

from __future__ import annotations

from pathlib import Path

from slapos_wendelin.disk_space import storage_shortage
from slapos_wendelin.mariadb.place import Place


def folder_of(place: Place) -> Path:
    """Return the folder of the data, or the partition while there is none."""
    return place.folder if place.folder.exists() else place.partition


def shortage(place: Place) -> str:
    """Return that the disk of the data is full, and what to do; empty when it is not."""
    return storage_shortage(folder_of(place))
