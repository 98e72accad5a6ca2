# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The logs of a storage node's MariaDB: each is set aside when it has become large."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from slapos_wendelin.mariadb.errors import ServerError
from slapos_wendelin.mariadb.place import Place, server_user
from slapos_wendelin.mariadb.programs import run

#: Bytes from which a log is set aside, and how many are kept of each.
LARGE, KEPT = 10 * 2**20, 4

#: Seconds between two looks.
_INTERVAL = 60.0


def rotate(place: Place, large: int = LARGE) -> bool:
    """Set aside the logs that are large: NAME.1 is the newest; return whether there was one."""
    found = [path for path in (place.error_log, place.slow_log) if _size(path) >= large]
    for path in found:
        for number in range(KEPT, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            newer = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
            if newer.exists():
                newer.replace(older)
    return bool(found)


def reopen(place: Place, software: Path) -> None:
    """Let the server write to new files.

    :raises ServerError: it does not answer. It does the same when it starts.
    """
    run(
        [
            software / "bin" / "mariadb",
            "--no-defaults",
            f"--socket={place.socket}",
            f"--user={server_user()}",
            "--execute=FLUSH ERROR LOGS, SLOW LOGS",
        ],
        "letting MariaDB reopen its logs",
    )


def _size(path: Path) -> int:
    """Return the size of a file, 0 when it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def main() -> None:
    """Look at the logs for ever, until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--software", required=True, type=Path, help="folder of the MariaDB")
    parser.add_argument("--partition", required=True, type=Path)
    parser.add_argument("--large", type=int, default=LARGE, help="bytes of a large log")
    parser.add_argument("--interval", type=float, default=_INTERVAL, help="seconds")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    place = Place(options.partition)
    pending = False
    while True:
        pending = rotate(place, options.large) or pending
        if pending:
            try:
                reopen(place, options.software)
                pending = False
            except (ServerError, subprocess.SubprocessError) as error:
                print(error, flush=True)
        time.sleep(options.interval)


if __name__ == "__main__":
    main()
