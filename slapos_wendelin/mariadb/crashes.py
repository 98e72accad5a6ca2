# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a storage node's MariaDB has ended without shutting down."""

from __future__ import annotations

import os
from pathlib import Path

from slapos_wendelin.files import write_atomically
from slapos_wendelin.mariadb.place import Place

#: How many are remembered.
_MOST = 100


def note_crash(place: Place, now: float) -> bool:
    """Remember it if the server, which does not run now, has left its process id; return whether.

    It removes the file when it ends in order.
    """
    if not place.server_pid.exists():
        return False
    times = [*crash_times(place.crashes), now]
    text = "".join(f"{each:.0f}\n" for each in times[-_MOST:])
    write_atomically(place.crashes, text)
    os.unlink(place.server_pid)  # noqa: PTH108 (as late as can be: it is counted twice, or once)
    return True


def crash_times(path: Path) -> list[float]:
    """Return the times of the crashes that are remembered, in seconds since the epoch."""
    try:
        return [float(line) for line in path.read_text().splitlines()]
    except (FileNotFoundError, ValueError):
        return []
