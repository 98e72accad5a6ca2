# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promise: addresses take connections."""

from __future__ import annotations

import socket
import time
from typing import Any

from slapos_wendelin.promise.base import BrokenPromiseError, Promise

#: Seconds that a program which was just started may take to listen.
START_TIME = 5.0


class RunPromise(Promise):
    """Green while every one of ``addresses`` (host:port, separated by spaces) takes connections.

    With ``elsewhere`` they belong to other computers: a closed port is then no reason to redo this
    partition.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        if self.getConfig("elsewhere"):
            self.setTestLess()

    def check(self) -> str:
        """Connect to each address."""
        addresses = self.getConfig("addresses").split()
        deadline = time.monotonic() + START_TIME
        closed = [address for address in addresses if not _listens(address, deadline)]
        if closed:
            raise BrokenPromiseError(f"nothing listens at {', '.join(closed)}")
        return f"{', '.join(addresses)} listens"


def _listens(address: str, deadline: float) -> bool:
    """Return whether *address* takes a connection before *deadline* (monotonic seconds)."""
    host, port = address.rsplit(":", 1)
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=START_TIME):
                return True
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.2)
