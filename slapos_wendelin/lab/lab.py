# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab: data centers with hosts, the ways between them, and the master's place."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import RLock
from typing import Any, Self, TypeVar

from slapos_wendelin.files import write_atomically
from slapos_wendelin.lab import relay as relay_program
from slapos_wendelin.lab.data_centers import DataCenter
from slapos_wendelin.lab.disks import DEFAULT_SIZE
from slapos_wendelin.lab.errors import LabError
from slapos_wendelin.lab.hosts import Host, HostDescription
from slapos_wendelin.lab.keeper import MASTER, Keeper, check_name
from slapos_wendelin.lab.links import Link, RelayClient
from slapos_wendelin.lab.polling import until
from slapos_wendelin.lab.requirements import require
from slapos_wendelin.lab.ssh import KeyPair

#: Addresses by the numbers of the data center and of the host in it, and the bits that all share.
IPV4, IPV6 = ("10.77.{}.{}", 16), ("fd00:77::{:x}:{:x}", 64)
MOST_DATA_CENTERS, MOST_HOSTS = 250, 250
#: Hosts that start at the same time.
STARTS = 8

_ENDS = ("from", "to")

Named = TypeVar("Named")


class Lab:
    """A lab. As a context manager it is torn down at the end.

    It is also torn down when the process that built it ends, in whatever way.
    """

    def __init__(self, name: str, *, ipv6: bool = False) -> None:
        self.name = name
        self.ipv6 = ipv6
        self.keeper = Keeper(name)
        #: Where the caller's own programs run, such as the master: commands started here are in
        #: the lab's network, with the files of this machine.
        self.master = self.keeper.master
        self.address = self._address(0, 1)
        self.folder = self.keeper.folder
        self.key = self.folder / "key"
        self.public_key = self.folder / "key.pub"
        self.known_hosts = self.folder / "known_hosts"
        self.relay = RelayClient(self.folder / "relay.sock")
        self.data_centers: dict[str, DataCenter] = {}
        self.hosts: dict[str, Host] = {}
        self._lock = RLock()

    @classmethod
    def build(
        cls,
        data_centers: Mapping[str, int],
        *,
        name: str = "",
        round_trip: float = 0.0,
        disk_size: int = DEFAULT_SIZE,
        ipv6: bool = False,
        stays: bool = False,
    ) -> Lab:
        """Build a lab and wait until all its hosts take SSH connections.

        :param data_centers: how many hosts each data center has; the hosts are called
            ``paris-1``, ``paris-2``.
        :param round_trip: seconds between any two data centers, and from each to the master.
        :param disk_size: bytes of each host's disk.
        :param ipv6: give the master's place and hosts addresses of IPv6, and none of IPv4.
        :param stays: leave it when this process ends, for :meth:`attach`.
        """
        require()
        lab = cls(name or f"test-{os.getpid()}-{secrets.token_hex(3)}", ipv6=ipv6)
        lab.keeper.start(stays=stays)
        try:
            lab._start_network()
            for center in data_centers:
                lab.add_data_center(center, round_trip=round_trip)
            names = [
                (center, f"{center}-{number}")
                for center, count in data_centers.items()
                for number in range(1, count + 1)
            ]
            lab.add_hosts(names, disk_size=disk_size)
        except BaseException:
            lab.close()
            raise
        return lab

    @classmethod
    def attach(cls, name: str) -> Lab:
        """Return a lab that stands. Raises LabError when there is none of that name."""
        lab = cls(name)
        if not lab.master.runs:
            raise LabError(f"there is no lab {name!r}", "build it: ./wendelin lab up")
        document = json.loads((lab.folder / "lab.json").read_text())
        lab = cls(name, ipv6=document["ipv6"])
        for center, number in document["data_centers"].items():
            lab.data_centers[center] = DataCenter(lab, center, number)
        for each in document["hosts"]:
            description = HostDescription(**each | {"numbers": tuple(each["numbers"])})
            lab.hosts[description.name] = Host(lab, description)
        return lab

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything in the lab and remove its files. Safe to repeat."""
        self.keeper.end()

    def add_data_center(self, name: str, *, round_trip: float = 0.0) -> DataCenter:
        """Add a data center, that many seconds from all others and from the master."""
        with self._lock:
            _check_new(name, (*self.data_centers, MASTER), "data center")
            number = len(self.data_centers) + 1
            if number > MOST_DATA_CENTERS:
                raise LabError(f"a lab has at most {MOST_DATA_CENTERS} data centers")
            self.relay.tell(add={name: f"wan{number}"})
            self.configure_network(
                f"link add dc{number} type bridge forward_delay 0 mcast_snooping 0",
                f"link set dc{number} up",
                f"link set wan{number} master dc{number} up",
            )
            center = self.data_centers[name] = DataCenter(self, name, number)
            center.slow_down(round_trip)
            self._write()
            return center

    def add_hosts(
        self, names: Iterable[tuple[str, str]], *, disk_size: int = DEFAULT_SIZE
    ) -> list[Host]:
        """Add hosts, given as data center and name, and wait until they take SSH connections."""
        with self._lock:
            hosts = [self._describe(center, name) for center, name in names]
            self._write()

        def start(host_and_key: tuple[Host, KeyPair]) -> None:
            host, key = host_and_key
            host.make(key, disk_size)
            host.start_up()

        self.on_all(hosts, start)
        return [host for host, _ in hosts]

    @staticmethod
    def on_all(each: Iterable[Named], work: Callable[[Named], object]) -> None:
        """Do the same for several, a few at a time."""
        with ThreadPoolExecutor(STARTS) as pool:
            list(pool.map(work, each))

    def ends(self) -> tuple[str, ...]:
        """Return whom ways lead to: the master and the data centers."""
        return (MASTER, *self.data_centers)

    def remove_host(self, name: str) -> None:
        """Take a host away for good, with its disk."""
        host = self.host(name)
        host.power_off()
        host.erase()
        with self._lock:
            del self.hosts[name]
            self._write()

    def _describe(self, center: str, name: str) -> tuple[Host, KeyPair]:
        """Enter a new host in the lab's lists; return it with the key of its SSH server."""
        data_center = self.data_center(center)
        _check_new(name, (*self.hosts, MASTER), "host")
        # The address of a host that was taken away is not given again soon.
        number = max((host.description.numbers[1] for host in data_center.hosts), default=0) + 1
        if number > MOST_HOSTS:
            raise LabError(f"a data center has at most {MOST_HOSTS} hosts")
        key = KeyPair(f"root@{name}")
        description = HostDescription(
            name=name,
            data_center=center,
            numbers=(data_center.number, number),
            address=self._address(data_center.number, number),
            host_key=key.public,
        )
        host = self.hosts[name] = Host(self, description)
        return host, key

    def host(self, name: str) -> Host:
        """Return a host by its name. Raises LabError where there is none."""
        return _named(self.hosts, name, "host")

    def data_center(self, name: str) -> DataCenter:
        """Return a data center by its name. Raises LabError where there is none."""
        return _named(self.data_centers, name, "data center")

    def link(self, first: str, second: str) -> Link:
        """Return the way between two data centers; one may be ``master``."""
        if first == second:
            raise LabError(f"{first!r} and {second!r} are one", "name two data centers")
        for name in {first, second} - {MASTER}:
            self.data_center(name)
        return Link(self.relay, first, second)

    def names(self) -> str:
        """Return the /etc/hosts of the lab."""
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", f"{self.address} {MASTER}"]
        lines += [f"{host.address} {host.name}" for host in self.hosts.values()]
        return "\n".join(lines) + "\n"

    def state(self) -> dict[str, Any]:
        """Return the hosts and the ways between data centers, for people and programs."""
        network = self.relay.tell()
        # Both directions are the same, as links make them.
        ways = [way for way in network["ways"] if _comes_first(way, self.ends())]
        return {
            "name": self.name,
            "key": str(self.key),
            "known_hosts": str(self.known_hosts),
            "hosts": [
                {
                    "name": host.name,
                    "data_center": host.data_center,
                    "address": host.address,
                    "state": host.state,
                    "free": host.disk.available if host.runs else None,
                }
                for host in self.hosts.values()
            ],
            "ways": [
                {
                    "between": [way["from"], way["to"]],
                    "round_trip": way["delay"] * 2,
                    "loss": way["loss"],
                    "megabits": way["rate"] * 8 / 1e6,
                    "is_cut": way["is_cut"] or any(network["cut"][way[end]] for end in _ENDS),
                }
                for way in ways
            ],
        }

    def _address(self, center: int, host: int) -> str:
        """Return the address of a host; the master's place is the first one in no data center."""
        return (IPV6 if self.ipv6 else IPV4)[0].format(center, host)

    def interface(self, address: str) -> tuple[str, ...]:
        """Return what ``ip address add`` wants to give an interface an address at once."""
        # The kernel would look for another one with this address for a second or two.
        return (f"{address}/{IPV6[1]}", "nodad") if self.ipv6 else (f"{address}/{IPV4[1]}",)

    def configure_network(self, *lines: str) -> None:
        """Carry out lines of ``ip`` in the lab's network."""
        self.master.run("ip", "-batch", "-", input="\n".join(lines) + "\n")

    def _start_network(self) -> None:
        """Start the relay, and give the master its place in the network."""
        key = KeyPair("lab")
        write_atomically(self.key, key.private, secret=True)
        self.public_key.write_text(key.line)
        self._write()
        self.master.run("mount", "--bind", str(self.folder / "names"), "/etc/hosts")
        log = self.relay.path.with_suffix(".log")
        program = [sys.executable, "-I", "-S", str(Path(relay_program.__file__))]
        self.master.start([*program, str(self.relay.path)], log).close()
        until(lambda: self.relay.answers, f"the relay answers (see {log})")
        self.relay.tell(add={MASTER: "wan"})
        self.configure_network(
            "link set lo up",
            " ".join(("address add", *self.interface(self.address), "dev wan")),
            "link set wan up",
        )

    def _write(self) -> None:
        """Write what others need to know of the lab."""
        document = {
            "ipv6": self.ipv6,
            "data_centers": {center.name: center.number for center in self.data_centers.values()},
            "hosts": [asdict(host.description) for host in self.hosts.values()],
        }
        write_atomically(self.folder / "lab.json", json.dumps(document, indent=2))
        # /etc/hosts of the master's place is this very file: it is written, not replaced.
        (self.folder / "names").write_text(self.names())
        keys = [
            f"{host.name},{host.address} {host.description.host_key}\n"
            for host in self.hosts.values()
        ]
        write_atomically(self.known_hosts, "".join(keys))
        self.tell_names(*self.hosts.values())

    def tell_names(self, *hosts: Host) -> None:
        """Let hosts know the names of all hosts."""
        with self._lock:
            for host in hosts:
                host.write_names(self.names())


def _comes_first(way: Mapping[str, str], names: tuple[str, ...]) -> bool:
    """Return whether a direction is the one in which its way is shown."""
    start, end = (names.index(way[each]) for each in _ENDS)
    return start < end


def _named(known: Mapping[str, Named], name: str, what: str) -> Named:
    """Return what has that name. Raises LabError, which says what there is."""
    if name not in known:
        raise LabError(
            f"the lab has no {what} {name!r}", f"it has {', '.join(known) or 'none at all'}"
        )
    return known[name]


def _check_new(name: str, taken: Iterable[str], what: str) -> None:
    """Raise LabError for a name that cannot be given to another host or data center."""
    check_name(name, what)
    if name in taken:
        raise LabError(f"the lab has a {what} {name!r} already", "choose another name")
