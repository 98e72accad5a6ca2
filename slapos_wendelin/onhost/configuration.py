# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a computer is told of itself: the files that slapformat, slapgrid and the service read."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from urllib.parse import urlsplit

from slapos_wendelin.errors import CommandError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.onhost.record import CONFIGURATION

_SETTINGS = """\
# Written by `slapos computer join`, which writes it anew when it is repeated.
[slapos]
computer_id = {name}
master_url = {master}
cert_file = {ssl}/computer.crt
key_file = {ssl}/computer.key
certificate_repository_path = {ssl}/partition_pki
software_root = {data}/soft
instance_root = {data}/inst
pidfile_software = {data}/run/software.pid
pidfile_instance = {data}/run/instance.pid
pidfile_report = {data}/run/report.pid
shared_part_list =
  {data}/shared

[slapformat]
input_definition_file = {folder}/definition.cfg
computer_xml = {data}/slapos.xml
partition_amount = {count}
partition_base_name = slappart
user_base_name = slapuser
tap_base_name = slaptap
alter_user = True
alter_network = False
create_tap = False
partition_has_ipv6_range = False
"""

_COMPUTER = """\
[computer]
address = {address}/255.255.255.255
software_user = slapsoft
"""

_PARTITION = """
[partition_{number}]
address = {address}/255.255.255.255
pathname = slappart{number}
user = slapuser{number}
network_interface = lo
"""


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
        addresses = self._addresses(own)
        definition = _COMPUTER.format(address=own) + "".join(
            _PARTITION.format(number=number, address=address)
            for number, address in enumerate(addresses)
        )
        settings = _SETTINGS.format(
            name=self.name,
            master=self.master,
            ssl=self.folder / "ssl",
            data=self.data,
            folder=self.folder,
            count=self.partitions,
        )
        return {self.settings: settings, self.folder / "definition.cfg": definition}

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
        block = IPv4Network(self.block)
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
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # Nothing is sent: the kernel says which address it would use.
            probe.connect((parts.hostname or "", parts.port or 443))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise CommandError(
            f"the host has no IPv4 address that leads to {master}: {error.strerror or error}",
            "give it one",
        ) from error
