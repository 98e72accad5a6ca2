# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files by which a computer knows itself: slapformat, slapgrid and the agent read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

from slapos_wendelin import build_settings

_SETTINGS = """\
[slapos]
computer_id = {name}
master_url = {master}
cert_file = {certificate}
key_file = {key}
certificate_repository_path = {partition_certificates}
software_root = {folder}/soft
instance_root = {folder}/inst
pidfile_software = {pid_files}/software.pid
pidfile_instance = {pid_files}/instance.pid
pidfile_report = {pid_files}/report.pid
shared_part_list =
  {shared_parts}
{more}
[slapformat]
input_definition_file = {definition}
computer_xml = {folder}/slapos.xml
partition_amount = {partitions}
partition_base_name = slappart
user_base_name = slapuser
tap_base_name = slaptap
alter_user = {is_root}
alter_network = False
create_tap = False
partition_has_ipv6_range = False
{more_of_format}"""

_COMPUTER = """\
[computer]
address = {address}
software_user = {user}
"""

_PARTITION = """
[partition_{number}]
address = {address}
pathname = slappart{number}
user = {user}
network_interface = lo
"""


@dataclass(frozen=True)
class ComputerFiles:
    """What is in ``slapos.cfg`` and in the definition of a computer.

    As an ordinary user, all partitions are that user's.
    """

    name: str
    master: str
    #: The computer's certificate, its key, and the folder of those of its partitions.
    certificate: Path
    key: Path
    partition_certificates: Path
    #: Where releases and partitions are.
    folder: Path
    pid_files: Path
    shared_parts: Path
    definition: Path
    #: The address of each partition.
    addresses: tuple[str, ...]
    #: The ordinary user; empty where root gives each partition a user of its own.
    user: str = ""
    #: The certificate of the master's authority, where the system does not know it.
    authority: Path | None = None
    #: Where builds take things from, by the options of `build_settings`.
    builds: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> str:
        """Return slapos.cfg."""
        # Without root it must not be asked whether this is root.
        more = "root_check = False\n" if self.user else ""
        authority = f"master_ca_file = {self.authority}\n" if self.authority else ""
        text = _SETTINGS.format(
            name=self.name,
            master=self.master,
            certificate=self.certificate,
            key=self.key,
            partition_certificates=self.partition_certificates,
            folder=self.folder,
            pid_files=self.pid_files,
            shared_parts=self.shared_parts,
            definition=self.definition,
            partitions=len(self.addresses),
            is_root=not self.user,
            more=authority + more,
            more_of_format=f"{more}interface_name = lo\n" if self.user else "",
        )
        return text + build_settings.section(self.builds)

    def described(self, own_address: str) -> str:
        """Return the definition.

        :param own_address: the computer's own.
        """
        parts: Iterable[str] = (
            _PARTITION.format(
                number=number, address=_alone(address), user=self.user or f"slapuser{number}"
            )
            for number, address in enumerate(self.addresses)
        )
        head = _COMPUTER.format(address=_alone(own_address), user=self.user or "slapsoft")
        return head + "".join(parts)


def _alone(address: str) -> str:
    """Return an address with the mask of a network that has no other, as slapformat wants it."""
    return f"{address}/{ip_network(address).netmask}"
