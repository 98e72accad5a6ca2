# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The request and publish recipes of slapos.cookbook, run by slapgrid against a real master."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from master_cloud import Cloud
from secure_cloud import SecureCloud
from slapos_command import run, stop_supervisord, write_configuration

from slapos_wendelin.master.client import MasterClient

REPOSITORY = Path(__file__).resolve().parents[3]

#: The release builds nothing: its instance profile lies beside it.
RELEASE = f"""\
[buildout]
extends = {REPOSITORY}/stack/slapos.cfg
parts = instance

[instance]
recipe = slapos.recipe.template:jinja2
output = ${{buildout:directory}}/instance.cfg
url = {{folder}}/instance.cfg.in
context =
  raw folder {{folder}}
  raw eggs_directory ${{buildout:eggs-directory}}
  raw develop_eggs_directory ${{buildout:develop-eggs-directory}}
"""

INSTANCE = """\
[buildout]
parts = switch
extensions = slapos_wendelin
eggs-directory = {{ eggs_directory }}
develop-eggs-directory = {{ develop_eggs_directory }}
eggs-directory-version =

[slap-configuration]
recipe = slapos.cookbook:slapconfiguration.serialised
computer = ${slap-connection:computer-id}
partition = ${slap-connection:partition-id}
url = ${slap-connection:server-url}
key = ${slap-connection:key-file}
cert = ${slap-connection:cert-file}

[profiles]
root = {{ folder }}/root.cfg
leaf = {{ folder }}/leaf.cfg
frontend = {{ folder }}/frontend.cfg

[switch]
recipe = slapos.cookbook:switch-softwaretype
default = profiles:root
leaf = profiles:leaf
frontend = profiles:frontend
"""

REQUESTS = """\
[buildout]
parts = optional publish
extensions = slapos_wendelin
eggs-directory-version =

[request]
server-url = ${slap-connection:server-url}
computer-id = ${slap-connection:computer-id}
partition-id = ${slap-connection:partition-id}
key-file = ${slap-connection:key-file}
cert-file = ${slap-connection:cert-file}
software-url = ${slap-connection:software-release-url}

[leaf]
<= request
recipe = slapos.cookbook:request.serialised
name = leaf
software-type = leaf
config-count = !py!3
return = url

[site]
<= request
recipe = slapos.cookbook:request
name = site
software-type = frontend
shared = true
config-backend = http://10.0.0.1
return = domain

[optional]
<= request
recipe = slapos.cookbook:requestoptional
name = extra
sla-datacenter = nowhere
return = url

[publish]
recipe = slapos.cookbook:publish
leaf-url = ${leaf:connection-url}
domain = ${site:connection-domain}
extra-url = ${optional:connection-url}
state = ${leaf:instance-state}
"""

LEAF = """\
[buildout]
parts = publish
extensions = slapos_wendelin
eggs-directory-version =

[location]
recipe = slapos_wendelin:location
computer = ${slap-connection:computer-id}
partition = ${slap-connection:partition-id}
url = ${slap-connection:server-url}
key = ${slap-connection:key-file}
cert = ${slap-connection:cert-file}

[publish]
recipe = slapos.cookbook:publish.serialised
url = leaf://${slap-connection:partition-id}
where = ${location:datacenter}
alike = ${location:alike}
"""

FRONTEND = """\
[buildout]
parts = shared
extensions = slapos_wendelin
eggs-directory-version =

[shared]
recipe = slapos.recipe.build
shared-list = ${slap-configuration:slave-instance-list}
server-url = ${slap-connection:server-url}
computer-id = ${slap-connection:computer-id}
partition-id = ${slap-connection:partition-id}
key-file = ${slap-connection:key-file}
cert-file = ${slap-connection:cert-file}
init =
  from slapos.slap import slap
  library = slap()
  library.initializeConnection(
      options['server-url'], options['key-file'], options['cert-file'])
  partition = library.registerComputerPartition(options['computer-id'], options['partition-id'])
  for shared in options['shared-list']:
    domain = shared['slave_title'] + '.example'
    partition.setConnectionDict(
        {'domain': domain, 'backend': shared['backend']}, shared['slave_reference'])
"""


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Give a software release with three software types."""
    folder = tmp_path / "release"
    folder.mkdir()
    profiles = {
        "software.cfg": RELEASE.replace("{folder}", str(folder)),
        "instance.cfg.in": INSTANCE,
        "root.cfg": REQUESTS,
        "leaf.cfg": LEAF,
        "frontend.cfg": FRONTEND,
    }
    for name, text in profiles.items():
        (folder / name).write_text(text)
    return folder / "software.cfg"


def test_a_tree_of_three_partitions_requests_and_publishes_until_all_is_there(
    cloud: Cloud, configuration: Path, release: Path
):
    check_tree(cloud.client, configuration, release)


def test_a_tree_is_the_same_with_tls_where_each_program_shows_its_own_certificate(
    secure_cloud: SecureCloud, tmp_path: Path, release: Path
):
    configuration = write_configuration(tmp_path, secure_cloud.url, partitions=4)
    pki = tmp_path / "pki"
    pki.mkdir()
    secure_cloud.operator.client.put_computer("paris")
    computer = secure_cloud.holder("computer", "paris").certificate
    text = configuration.read_text().replace(
        "root_check = False\n",
        f"root_check = False\ncert_file = {computer}\nkey_file = {computer}\n"
        f"certificate_repository_path = {pki}\n",
        1,
    )
    operator = secure_cloud.operator.certificate
    configuration.write_text(text + f"cert_file = {operator}\nkey_file = {operator}\n")
    try:
        check_tree(secure_cloud.operator.client, configuration, release)
    finally:
        stop_supervisord(tmp_path)
    assert {path.name for path in pki.iterdir()} == {
        f"slappart{index}.{kind}" for index in range(3) for kind in ("crt", "key")
    }
    assert {path.stat().st_mode & 0o777 for path in pki.iterdir()} == {0o400}
    assert {each.split("/")[0] for each in secure_cloud.history()} == {
        *("operator", "computer", "partition", "master"),
    }


def check_tree(client: MasterClient, configuration: Path, release: Path) -> None:
    """Let a computer process a tree until all is there."""
    client.put_computer("paris", datacenter="europe")
    node = ["node", "instance"]
    outputs = run(
        configuration,
        ["node", "format", "--now"],
        ["request", "frontend", str(release), "--type", "frontend"],
        ["request", "cluster", str(release)],
        ["node", "software"],
        *[node] * 4,
        ["service", "info", "cluster"],
    )
    shown = json.loads(outputs[-1].rsplit("status ", 1)[0])
    assert shown["connection-parameters"] == {
        "leaf-url": "leaf://slappart2",
        "domain": "site.example",
        "extra-url": "",
        "state": "started",
    }, "\n".join(outputs)
    assert shown["status"] == "green"
    tree = client.instance("cluster")
    leaf, site = sorted(tree["children"], key=lambda each: each["reference"])
    assert (leaf["reference"], leaf["parameters"]) == ("leaf", {"count": 3})
    assert leaf["connection"]["where"] == "europe"
    assert leaf["connection"]["alike"] == "1"
    assert (site["shared"], site["connection"]["backend"]) == (True, "http://10.0.0.1")
    assert [each["settled"] for each in (tree, leaf, site)] == [True] * 3
