# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports for servers that tests and benchmarks start, several of which may run at once."""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path

#: Below are ports of well-known services.
_LOWEST, _HIGHEST = 10_000, 65_535

#: What keeps ports from being given to other processes, until this one ends.
_reserved: list[socket.socket] = []


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return TCP ports of a loopback address (in brackets when it is of IPv6) that nobody uses.

    They stay free for who asked for them until this process ends: the system gives none of them to
    programs that take any port, and no other process gets one of them here. So a server may listen
    at its port late, or be away for a while.
    """
    given = _given_by_the_system()
    candidates = [port for port in range(_LOWEST, _HIGHEST + 1) if port not in given]
    found: list[int] = []
    while len(found) < count:
        port = random.choice(candidates)  # noqa: S311 (it is no secret)
        if _reserve(port, host):
            found.append(port)
    return found


def _given_by_the_system() -> range:
    """Return the ports that the system gives to who takes any."""
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    first, last = map(int, text.split())
    return range(first, last + 1)


def _reserve(port: int, host: str) -> bool:
    """Keep a port for this process unless somebody has or uses it; return whether that was done."""
    # A name of this kind is free again when its process has ended, in whatever way.
    claim = socket.socket(socket.AF_UNIX)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        claim.bind(f"\0slapos-wendelin-port-{port}")
        with socket.socket(family) as probe:
            probe.bind((host.strip("[]"), port))
    except OSError as error:
        claim.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    _reserved.append(claim)
    return True
