# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a computer is told of itself: the files that slapformat, slapgrid and the service read."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from slapos_wendelin.computer_files import ComputerFiles
from slapos_wendelin.errors import CommandError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.onhost.record import CONFIGURATION

_HEAD = "# Written by `slapos computer join`, which writes it anew when it is repeated.\n"


@dataclass(frozen=True)
class Computer:
    """What this host is to be."""

    name: str
    master: str
    data: Path
    partitions: int
    #: A block of addresses, one for each partition; empty for the host's own address.
    block: str = ""
    folder: Path = Path(CONFIGURATION)
    #: Where builds take things from, by the options of `build_settings`.
    builds: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> Path:
        """The configuration file, where slapos.core looks for it."""
        return self.folder / "slapos.cfg"

    @property
    def certificate(self) -> Path:
        """The computer's certificate; its key lies beside it."""
        return self.folder / "ssl" / "computer.crt"

    def texts(self) -> dict[Path, str]:
        """Return the configuration files."""
        own = own_address(self.master)
        ssl = self.certificate.parent
        files = ComputerFiles(
            name=self.name,
            master=self.master,
            certificate=self.certificate,
            key=self.certificate.with_suffix(".key"),
            partition_certificates=ssl / "partition_pki",
            folder=self.data,
            pid_files=self.data / "run",
            shared_parts=self.data / "shared",
            definition=self.folder / "definition.cfg",
            addresses=tuple(self._addresses(own)),
            builds=self.builds,
        )
        return {self.settings: _HEAD + files.settings(), files.definition: files.described(own)}

    def write(self, texts: dict[Path, str]) -> None:
        """Write the configuration files, and make the folders that slapformat does not make."""
        (self.data / "run").mkdir(mode=0o755, parents=True, exist_ok=True)
        # The certificates of partitions are read by their users; keys are for their owners only.
        for folder in (self.certificate.parent, self.certificate.parent / "partition_pki"):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711)
        for path, text in texts.items():
            write_atomically(path, text)

    def _addresses(self, own: str) -> list[str]:
        """Return the address of each partition."""
        if not self.block:
            return [own] * self.partitions
        block = ip_network(self.block)
        if block.num_addresses < self.partitions:
            raise CommandError(
                f"{self.block} has {block.num_addresses} addresses, not {self.partitions}",
                "give a larger block with --addresses, or have fewer partitions",
            )
        return [str(block[number]) for number in range(self.partitions)]


def own_address(master: str) -> str:
    """Return the address from which this host calls the master."""
    parts = urlsplit(master)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_DGRAM)
        family, kind, *_, there = found[0]
        with socket.socket(family, kind) as probe:
            # Nothing is sent: the kernel says which address it would use.
            probe.connect(there)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise CommandError(
            f"the host has no address that leads to {master}: {error.strerror or error}",
            "give it one",
        ) from error
