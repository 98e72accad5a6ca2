# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the three computers: their folders, their slapos.cfg, their partitions."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

from slapos_wendelin.errors import CommandError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.local.home import PARTITION_COUNT, Home

CONFIGURATION = """\
[slapos]
computer_id = {name}
master_url = {master_url}
master_ca_file = {authority}
cert_file = {certificate}
key_file = {key}
certificate_repository_path = {partition_certificates}
software_root = {folder}/soft
instance_root = {folder}/inst
root_check = False
pidfile_software = {folder}/software.pid
pidfile_instance = {folder}/instance.pid
pidfile_report = {folder}/report.pid
shared_part_list =
  {shared_parts}

[slapformat]
root_check = False
input_definition_file = {folder}/definition.cfg
computer_xml = {folder}/slapos.xml
partition_amount = {partition_count}
partition_base_name = slappart
user_base_name = slapuser
tap_base_name = slaptap
interface_name = lo
alter_user = False
alter_network = False
create_tap = False
partition_has_ipv6_range = False
"""

COMPUTER = """\
[computer]
address = {address}/255.255.255.255
software_user = {user}
"""

PARTITION = """\
[partition_{number}]
address = {address}/255.255.255.255
pathname = slappart{number}
user = {user}
network_interface = lo
"""


def configure_computer(home: Home, name: str) -> None:
    """Write the files that slapformat and slapgrid read. Safe to repeat."""
    folder = home.computer(name)
    certificates = home.partition_certificates(name)
    certificates.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (folder / "soft", folder / "inst", home.shared_parts, certificates):
        path.mkdir(parents=True, exist_ok=True)
    text = CONFIGURATION.format(
        name=name,
        master_url=home.master_url,
        authority=home.authority,
        certificate=home.member(name).certificate,
        key=home.member(name).key,
        partition_certificates=certificates,
        folder=folder,
        shared_parts=home.shared_parts,
        partition_count=PARTITION_COUNT,
    )
    write_atomically(home.computer_configuration(name), text)
    user = getpass.getuser()
    definition = [COMPUTER.format(address=f"{home.network}.0.1", user=user)]
    definition += [
        PARTITION.format(number=number, address=home.partition_address(name, number), user=user)
        for number in range(PARTITION_COUNT)
    ]
    write_atomically(folder / "definition.cfg", "\n".join(definition))


def format_computer(home: Home, name: str) -> None:
    """Let slapformat make the partitions and tell the master. Raises CommandError."""
    run_slapos(home, "node", "format", "--now", "--cfg", str(home.computer_configuration(name)))


def run_slapos(home: Home, *arguments: str) -> str:
    """Run the slapos command of this toolkit and return what it said. Raises CommandError."""
    command = [str(Path(sys.executable).with_name("slapos")), *arguments]
    environment = os.environ | {"SLAPOS_CLIENT_CONFIGURATION": str(home.client_configuration)}
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        check=False,
    )
    if result.returncode:
        lines = [line for line in result.stdout.splitlines() if line.strip()]
        said = lines[-1] if lines else "it said nothing"
        raise CommandError(
            f"slapos {' '.join(arguments)} failed: {said}",
            "run it by hand: ./wendelin run slapos",
        )
    return result.stdout
