# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways between data centers, and what can befall them."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from slapos_wendelin.errors import CommandError
from slapos_wendelin.lab.errors import LabError

_MESSAGE = 1 << 20


class RelayClient:
    """Tells the relay of a lab what to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def tell(self, **message: Any) -> dict[str, Any]:
        """Send one message; return the state of the network after it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(30)
            try:
                connection.connect(str(self.path))
                connection.sendall(json.dumps(message).encode())
                reply = json.loads(connection.recv(_MESSAGE))
            except (OSError, ValueError) as error:
                raise LabError(
                    f"the relay of the lab does not answer at {self.path}: {error}",
                    f"look into {self.path.with_suffix('.log')}, then build the lab anew",
                ) from error
        if "error" in reply:
            raise CommandError(f"the relay of the lab refuses {message}: {reply['error']}")
        return reply

    @property
    def answers(self) -> bool:
        """Whether the relay can be told anything."""
        try:
            self.tell()
        except LabError:
            return False
        return True


class Link:
    """The way between two data centers, in both directions."""

    def __init__(self, relay: RelayClient, first: str, second: str) -> None:
        self.relay = relay
        self.ends = (first, second)

    def cut(self) -> None:
        """Let nothing through; what is on its way is lost."""
        self._set(is_cut=True)

    def heal(self) -> None:
        """Let packets through again."""
        self._set(is_cut=False)

    def slow_down(self, round_trip: float) -> None:
        """Let a packet and its answer take *round_trip* seconds, as ping shows them."""
        self._set(delay=_checked("a round trip in seconds", round_trip) / 2)

    def lose(self, share: float) -> None:
        """Lose that share of packets in each direction: 0.01 is one of a hundred."""
        if not 0 <= share <= 1:
            raise LabError(f"a share of packets is from 0 to 1, not {share}")
        self._set(loss=share)

    def limit(self, megabits: float) -> None:
        """Let through that many million bits a second in each direction; 0 takes the limit away."""
        self._set(rate=_checked("a rate", megabits) * 1e6 / 8)

    def _set(self, **changes: Any) -> None:
        """Change both directions."""
        first, second = self.ends
        self.relay.tell(
            ways=[
                {"from": first, "to": second} | changes,
                {"from": second, "to": first} | changes,
            ]
        )


def _checked(what: str, number: float) -> float:
    """Return a number that is not negative. Raises LabError for any other."""
    if not number >= 0:
        raise LabError(f"{what} is not negative, as {number} is")
    return number
