# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the environment keeps everything, and the loopback addresses it uses."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from slapos_wendelin.errors import MissingRequirementError
from slapos_wendelin.files import held

#: The data centers that the environment simulates, with their regions.
DATA_CENTERS = {"paris": "europe", "tokyo": "asia", "virginia": "america"}
#: Partitions of each computer.
PARTITION_COUNT = 12
MASTER_PORT = 5000
#: Bytes that a path of a unix socket may have on Linux, without the final zero.
SOCKET_PATH_LIMIT = 107


@dataclass(frozen=True)
class Member:
    """The files with which somebody calls the master."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Home:
    """The folder of one environment and its addresses, which no other environment uses."""

    root: Path
    #: First two numbers of every address, such as 127.77, or the beginning of those of IPv6.
    network: str

    @classmethod
    def from_environment(cls) -> Home:
        """Read WENDELIN_HOME and WENDELIN_NETWORK; raises MissingRequirementError."""
        root = Path(os.environ["WENDELIN_HOME"])
        longest = root / "computers" / max(DATA_CENTERS, key=len) / "inst" / "sv.sock.0000000"
        if len(os.fsencode(longest)) > SOCKET_PATH_LIMIT:
            raise MissingRequirementError(
                f"WENDELIN_HOME={root} is too long for the sockets below it",
                "set WENDELIN_HOME to a shorter path",
            )
        network = os.environ.get("WENDELIN_NETWORK") or _network_of(root)
        return cls(root, _check_network(network))

    @property
    def master_address(self) -> str:
        """Host and port of the slap master."""
        own = self.own_address
        return f"[{own}]:{MASTER_PORT}" if self.is_ipv6 else f"{own}:{MASTER_PORT}"

    @property
    def is_ipv6(self) -> bool:
        """Whether all addresses are of IPv6."""
        return ":" in self.network

    @property
    def own_address(self) -> str:
        """The address of the master, which is that of the computers too."""
        return f"{self.network}::1" if self.is_ipv6 else f"{self.network}.0.1"

    @property
    def master_url(self) -> str:
        """URL of the slap master."""
        return f"https://{self.master_address}"

    def partition_address(self, computer: str, number: int) -> str:
        """Address of partition *number* (from 0) of *computer*."""
        which = list(DATA_CENTERS).index(computer) + 1
        if self.is_ipv6:
            return f"{self.network}::{which}:{10 + number}"
        return f"{self.network}.{which}.{10 + number}"

    def computer(self, name: str) -> Path:
        """Folder of a computer."""
        return self.root / "computers" / name

    def computer_configuration(self, name: str) -> Path:
        """Path of a computer's slapos.cfg."""
        return self.computer(name) / "slapos.cfg"

    @property
    def client_configuration(self) -> Path:
        """What the slapos command reads to find the master."""
        return self.root / "etc" / "slapos-client.cfg"

    @property
    def shared_parts(self) -> Path:
        """Where builds put what several computers and releases share, named by content."""
        return self.root / "parts"

    @property
    def downloads(self) -> Path:
        """Where source archives are kept, named as buildout looks for them."""
        return self.root / "cache" / "download"

    @property
    def log(self) -> Path:
        """Folder of the logs of the master and of the computers' services."""
        return self.root / "log"

    @property
    def data(self) -> Path:
        """Folder of the master's database and authority."""
        return self.root / "master"

    @property
    def database(self) -> Path:
        """The master's database."""
        return self.data / "master.sqlite"

    @property
    def authority(self) -> Path:
        """The certificate of the master's authority, in the authority's folder."""
        return self.data / "authority" / "ca.crt"

    @property
    def user(self) -> Member:
        """The files of the environment's user, an operator."""
        folder = self.root / "etc" / "ssl"
        return Member(folder / "user.crt", folder / "user.key")

    @property
    def certificates(self) -> Path:
        """Folder of the certificate with which the environment's user uses the cluster."""
        return self.root / "etc" / "ssl" / "cluster"

    def member(self, computer: str) -> Member:
        """Return the files of a computer."""
        folder = self.computer(computer) / "ssl"
        return Member(folder / "computer.crt", folder / "computer.key")

    def partition_certificates(self, computer: str) -> Path:
        """Return the folder in which slapgrid puts the certificates of a computer's instances."""
        return self.computer(computer) / "ssl" / "partitions"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the environment: one up or down at a time. Raises MissingRequirementError."""
        self.root.mkdir(parents=True, exist_ok=True)
        refusal = MissingRequirementError(
            f"another command works on {self.root}", "wait until it ends, or interrupt it"
        )
        with held(self.root / ".lock", refusal):
            yield


#: Private addresses of IPv6 (RFC 4193).
_NOT_ROUTED = ip_network("fc00::/7")


def _network_of(root: Path) -> str:
    """Derive the second number from the folder, so that environments rarely share addresses."""
    digest = hashlib.sha256(os.fsencode(root)).digest()
    return f"127.{64 + digest[0] % 128}"


def _check_network(network: str) -> str:
    """Return *network* when it is in the loopback range, as nothing here is meant for others.

    With IPv6, whose loopback network has one address, it is one that is not routed outside.
    """
    if ":" in network:
        try:
            if ip_address(f"{network}::1") in _NOT_ROUTED:
                return network
        except ValueError:
            pass
        raise MissingRequirementError(
            f"WENDELIN_NETWORK={network} is no beginning of private addresses of IPv6",
            "use one such as fd00:77, whose addresses this machine has; see docs/operating.md",
        )
    first, _, second = network.partition(".")
    if first != "127" or not second.isdecimal() or not 1 <= int(second) <= 254:  # noqa: PLR2004
        raise MissingRequirementError(
            f"WENDELIN_NETWORK={network} is no part of the loopback network",
            "use 127 and a number from 1 to 254, such as 127.77",
        )
    return network
