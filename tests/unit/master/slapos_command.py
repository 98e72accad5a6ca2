# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The slapos command as slapos.core has it, and a computer that it runs."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport

#: Runs several commands in one process, which saves the start of the command's many imports. As
#: root, slapgrid would become another user for each partition, who may not reach this Python.
RUN_ALL = """
import json, os, sys
from slapos.cli.entry import main
import slapos.grid.utils
if os.geteuid() == 0:
    slapos.grid.utils.dropPrivileges = lambda *_, **__: None
for command in json.loads(sys.argv[1]):
    print("==>", flush=True)
    try:
        status = main(command)
    except SystemExit as end:
        status = end.code
    print("status", status or 0, flush=True)
"""

CONFIGURATION = """[slapos]
software_root = {folder}/soft
instance_root = {folder}/inst
master_url = {url}
computer_id = paris
root_check = False
pidfile_software = {folder}/software.pid
pidfile_instance = {folder}/instance.pid
pidfile_report = {folder}/report.pid
[slapformat]
root_check = False
input_definition_file = {folder}/definition.cfg
computer_xml = {folder}/slapos.xml
partition_amount = {partitions}
alter_user = False
alter_network = False
create_tap = False
[slapconsole]
"""

COMPUTER = """[computer]
address = 127.0.0.1/8
"""

PARTITION = """[partition_{index}]
address = 127.0.0.1/8
pathname = slappart{index}
user = {user}
network_interface = lo
"""


def write_configuration(folder: Path, url: str, partitions: int) -> Path:
    """Write a slapos.cfg for the computer paris and make its folders."""
    for name in ("soft", "inst"):
        (folder / name).mkdir()
    path = folder / "slapos.cfg"
    path.write_text(CONFIGURATION.format(folder=folder, url=url, partitions=partitions))
    described = [
        PARTITION.format(index=index, user=getpass.getuser()) for index in range(partitions)
    ]
    (folder / "definition.cfg").write_text(COMPUTER + "".join(described))
    return path


def stop_supervisord(folder: Path) -> None:
    """Stop the supervisord that slapgrid starts."""
    socket = folder / "inst" / "sv.sock"
    if socket.exists():
        transport = SupervisorTransport(None, None, f"unix://{socket}")
        ServerProxy("http://127.0.0.1", transport).supervisor.shutdown()


def run(configuration: Path, *commands: list[str]) -> list[str]:
    """Run slapos commands one after another and return what each wrote."""
    with_configuration = [[*command, "--cfg", str(configuration)] for command in commands]
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN_ALL, json.dumps(with_configuration)],
        check=True,
        env=os.environ | {"HOME": str(configuration.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    ).stdout
    return [each.strip() for each in output.split("==>")[1:]]
