# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that is to be a computer: where it is reached, and what the master is to know of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from urllib.parse import urlsplit

from slapos_wendelin.errors import ParameterError

#: The port of SSH.
PORT = 22

_SCHEME = "ssh"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Address:
    """Where SSH reaches a host."""

    host: str
    port: int | None = None
    user: str | None = None

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port not in (None, PORT) else ""
        return f"{user}{host}{port}"

    @property
    def url(self) -> str:
        """The address as users write it."""
        return f"{_SCHEME}://{self}"


@dataclass(frozen=True)
class Target:
    """One host, and what it is to be."""

    address: Address
    #: Empty to take the host's own name.
    name: str = ""
    #: The hosts through which it is reached, the nearest first.
    jumps: tuple[Address, ...] = ()
    datacenter: str = ""
    region: str = ""
    provider: str = ""
    network: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    #: None to leave it at what the host has, or at the usual number.
    partitions: int | None = None
    #: The addresses of the partitions, such as 10.0.1.16/28; empty for the host's own address.
    addresses: str = ""
    #: Where its builds take things from, by the options of `build_settings`, as far as given.
    builds: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> dict[str, str]:
        """What the master is to know of where it is."""
        names = ("datacenter", "region", "provider", "network")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


def parse_address(text: str, place: str) -> Address:
    """Return the address that a URL or ``user@host:port`` names.

    :param place: where the text stands, for the error.
    :raises ParameterError: when it names none.
    """
    remedy = "write ssh://USER@HOST:PORT; USER and PORT may be left out"
    bare = f"[{text}]" if text.count(":") > 1 and not set(text) & set("[@/") else text
    parts = urlsplit(bare if "://" in text else f"{_SCHEME}://{bare}")
    try:
        port = parts.port
    except ValueError as error:
        raise ParameterError(f"{place} is {text!r}: the port is none", remedy) from error
    wrong = parts.scheme != _SCHEME or not parts.hostname or parts.path.strip("/")
    if wrong or parts.query or parts.fragment or port == 0:
        raise ParameterError(f"{place} is {text!r}, no address for SSH", remedy)
    if parts.password is not None:
        raise ParameterError(
            f"{place} holds a password", "use a key: passwords are seen by others of this machine"
        )
    return Address(parts.hostname or "", port, parts.username)


def parse_jumps(text: str, place: str) -> tuple[Address, ...]:
    """Return the hosts to go through, given with commas in between, the nearest first."""
    return tuple(parse_address(each.strip(), place) for each in text.split(",") if each.strip())


def check_name(name: str) -> str:
    """Return the name of a computer.

    :raises ParameterError: when a computer cannot be called so.
    """
    if _NAME.fullmatch(name):
        return name
    raise ParameterError(
        f"the computer's name is {name!r}", "use letters, digits, dots and hyphens: --name NAME"
    )


def check_addresses(text: str, partitions: int | None, place: str) -> None:
    """Refuse what is no block of addresses, or too small a one.

    :param text: such as 10.0.1.16/28; empty for none.
    :param partitions: how many partitions each need one, where that is known.
    :param place: where the text stands, for the error.
    """
    if not text:
        return
    try:
        block = ip_network(text)
    except ValueError as error:
        raise ParameterError(
            f"{place} is {text!r}: {error}",
            "write a block of addresses, such as 10.0.1.16/28 or fd00:1::10/124",
        ) from error
    if partitions is not None and block.num_addresses < partitions:
        raise ParameterError(
            f"{place} is {text!r}: {block.num_addresses} addresses for {partitions} partitions",
            "give a larger block, or have fewer partitions",
        )
