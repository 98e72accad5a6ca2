# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a program once MariaDB answers and its disk has room.

python -m slapos_wendelin.mariadb.wait --socket PATH -- PROGRAM [ARGUMENT...]
"""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

from slapos_wendelin.mariadb.disk import shortage
from slapos_wendelin.mariadb.place import Place
from slapos_wendelin.room import become_when_ready

#: The first byte of what a server says to whom it lets in (the version of its protocol).
_GREETING = 10

#: Length and number of a packet, which come before its content.
_HEADER = 4


def answers(path: Path) -> bool:
    """Return whether a server takes connections at a socket: it greets when it is ready."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(path))
            greeting = connection.recv(_HEADER + 1, socket.MSG_WAITALL)
        except OSError:
            return False
    return len(greeting) > _HEADER and greeting[_HEADER] == _GREETING


def _missing(path: Path) -> str:
    """Return what is waited for; empty when all is there.

    A storage without room would fail at the first write, over and over.
    """
    if full := shortage(Place(path.parents[2])):
        return f"room: {full}"
    return "" if answers(path) else f"MariaDB at {path}"


def main() -> None:
    """Wait, then become the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--socket", required=True, type=Path)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    become_when_ready(lambda: _missing(options.socket), options.command)


if __name__ == "__main__":
    main()
