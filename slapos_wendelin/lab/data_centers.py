# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A data center: hosts at one switch, and the ways to everybody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slapos_wendelin.lab.disks import DEFAULT_SIZE

if TYPE_CHECKING:
    from slapos_wendelin.lab.hosts import Host
    from slapos_wendelin.lab.lab import Lab
    from slapos_wendelin.lab.links import Link


class DataCenter:
    """One data center of a lab.

    :param number: the third number of its hosts' addresses.
    """

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        self.lab = lab
        self.name = name
        self.number = number

    @property
    def hosts(self) -> list[Host]:
        """Its hosts."""
        return [host for host in self.lab.hosts.values() if host.data_center == self.name]

    @property
    def links(self) -> list[Link]:
        """The ways to all other data centers and to the master."""
        return [self.lab.link(self.name, other) for other in self.lab.ends() if other != self.name]

    def add_host(self, name: str = "", *, disk_size: int = DEFAULT_SIZE) -> Host:
        """Add a host and wait until it takes SSH connections."""
        name = name or f"{self.name}-{len(self.hosts) + 1}"
        return self.lab.add_hosts([(self.name, name)], disk_size=disk_size)[0]

    def cut(self) -> None:
        """Cut it off from everybody else; its hosts still reach each other."""
        self.lab.relay.tell(cut={self.name: True})

    def heal(self) -> None:
        """Let it be reached again, but by ways that were cut themselves."""
        self.lab.relay.tell(cut={self.name: False})

    @property
    def is_cut(self) -> bool:
        """Whether it is cut off."""
        return bool(self.lab.relay.tell()["cut"][self.name])

    def slow_down(self, round_trip: float) -> None:
        """Let the way to everybody else and back take that many seconds."""
        for link in self.links:
            link.slow_down(round_trip)

    def lose(self, share: float) -> None:
        """Lose that share of packets on all ways: 0.01 is one of a hundred."""
        for link in self.links:
            link.lose(share)

    def limit(self, megabits: float) -> None:
        """Let through that many million bits a second on each way; 0 takes the limit away."""
        for link in self.links:
            link.limit(megabits)

    def power_off(self) -> None:
        """Take the power of all its hosts."""
        self.lab.on_all(self.hosts, lambda host: host.power_off())

    def power_on(self) -> None:
        """Start all its hosts."""
        self.lab.on_all(self.hosts, lambda host: host.power_on())
