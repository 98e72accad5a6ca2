# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real slapos command against a real master."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xmlrpc.client import ServerProxy

import pytest
from master_cloud import Cloud
from supervisor.xmlrpc import SupervisorTransport

#: Runs several commands in one process, which saves the start of the command's many imports.
RUN_ALL = """
import json, sys
from slapos.cli.entry import main
from slapos_wendelin.cli.module_files import accept_module_names
accept_module_names()
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
partition_amount = 2
alter_user = False
alter_network = False
create_tap = False
[slapconsole]
"""

DEFINITION = """[computer]
address = 127.0.0.1/8
[partition_0]
address = 127.0.0.1/8
pathname = slappart0
user = {user}
network_interface = lo
[partition_1]
address = 127.0.0.1/8
pathname = slappart1
user = {user}
network_interface = lo
"""


@pytest.fixture
def configuration(cloud: Cloud, tmp_path: Path) -> Iterator[Path]:
    """Give a slapos.cfg for the computer paris, and stop the supervisord that slapgrid starts."""
    for name in ("soft", "inst"):
        (tmp_path / name).mkdir()
    path = tmp_path / "slapos.cfg"
    path.write_text(CONFIGURATION.format(folder=tmp_path, url=cloud.url))
    definition = DEFINITION.format(user=getpass.getuser())
    (tmp_path / "definition.cfg").write_text(definition)
    yield path
    socket = tmp_path / "inst" / "sv.sock"
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
        timeout=120,
    ).stdout
    return [each.strip() for each in output.split("==>")[1:]]


def test_a_user_and_a_computer_work_with_the_slapos_command(
    cloud: Cloud, configuration: Path, tmp_path: Path
):
    release = tmp_path / "software.cfg"
    outputs = run(
        configuration,
        ["node", "format", "--now"],
        ["supply", str(release), "paris"],
        ["remove", str(release), "paris"],
        ["node", "software"],
        ["request", "cluster", str(release), "--parameters", "count=3"],
        ["service", "list"],
        ["service", "info", "cluster"],
        ["service", "info", "unknown"],
        ["computer", "list"],
        ["computer", "info", "paris"],
        ["computer", "info", "unknown"],
        ["node", "bang", "-m", "hello"],
        ["request", "cluster", str(release), "--state", "destroyed"],
        ["node", "report"],
    )
    statuses = [int(each.rsplit("status ", 1)[1]) for each in outputs]
    assert statuses == [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0, 0, 0], "\n\n".join(outputs)
    texts = [each.rsplit("status ", 1)[0].strip() for each in outputs]
    assert "State is : started" in texts[4]
    assert json.loads(texts[5]) == {"cluster": str(release)}
    info = json.loads(texts[6])
    assert info["instance-parameters"] == {"count": "3"}
    assert (info["requested-state"], info["status"]) == ("started", "red")
    assert "paris" in texts[8]
    assert "Computer Reference: paris" in texts[9]
    # The report destroyed the instance and its partition is free again.
    (computer,) = cloud.client.computers()
    assert (computer["partitions"], computer["partitions_used"]) == (2, 0)
    assert cloud.client.instances() == []


def test_the_slapos_command_shows_why_a_request_is_refused(cloud: Cloud, configuration: Path):
    cloud.add_computer("paris", partitions=1, datacenter="paris")
    release = str(configuration.with_name("software.cfg"))
    full, unknown = run(
        configuration,
        ["request", "cluster", release, "--node", "datacenter=tokyo"],
        ["request", "cluster", release, "--node", "datacentre=paris"],
    )
    assert "paris: data center is paris, asked for tokyo" in full
    assert "unknown SLA key 'datacentre' (the known ones are computer_guid, datacenter" in unknown
