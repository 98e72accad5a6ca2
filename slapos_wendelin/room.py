# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a program once the disk of its data has room.

python -m slapos_wendelin.room --folder FOLDER -- PROGRAM [ARGUMENT...]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

from slapos_wendelin.disk_space import ROOM_FOR_DATABASE, fault_of

#: Seconds between two looks.
_PAUSE = 0.1


def become_when_ready(missing: Callable[[], str], command: list[str]) -> None:
    """Say what is missing and wait until nothing is, then become a program.

    :param missing: returns what is missing, empty when all is there.
    """
    said = ""
    while what := missing():
        if what != said:
            print(f"waiting for {what}", flush=True)
            said = what
        time.sleep(_PAUSE)
    os.execv(command[0], command)  # noqa: S606 (no shell is wanted)


def main() -> None:
    """Wait, then become the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    def missing() -> str:
        full = fault_of(options.folder, ROOM_FOR_DATABASE)
        return full and f"room: {full}"

    become_when_ready(missing, options.command)


if __name__ == "__main__":
    main()
