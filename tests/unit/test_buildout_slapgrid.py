# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""slapgrid builds a release and an instance with stock buildout, without an index."""

import importlib.resources
import json
import logging
import os
import re
from pathlib import Path

import pytest
from buildout_runs import write
from slapos.grid.SlapObject import Software
from slapos.grid.utils import launchBuildout

REPOSITORY = Path(__file__).resolve().parents[2]

RELEASE = REPOSITORY / "tests" / "hosts" / "release"
#: What else the template for instances is told.
CONTEXT = "  raw shared ${buildout:shared-part-list}\n"

INSTANCE = """\
[buildout]
parts = part
extensions = slapos_wendelin
eggs-directory = {{ eggs_directory }}
develop-eggs-directory = {{ develop_eggs_directory }}
eggs-directory-version =

[part]
recipe = slapos.recipe.template:jinja2
output = ${buildout:directory}/out
value = !py!{'shared': '{{ shared }}'}
inline = {{ '{{ dict(value, computer=computer) | tojson }}' }}
context =
  key value :value
  key computer slap-connection:computer-id
"""


@pytest.fixture
def no_index(monkeypatch):
    """Make any look at an index fail."""
    for variable in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9/")


@pytest.fixture
def same_user(monkeypatch):
    """Keep slapgrid from becoming another user, which may not reach this Python."""
    if os.geteuid() == 0:
        monkeypatch.setattr("slapos.grid.utils.dropPrivileges", lambda *_, **__: None)


@pytest.mark.usefixtures("no_index", "same_user")
def test_a_release_and_its_instance_are_built(tmp_path):
    log = logging.getLogger("slapgrid")
    profile = (RELEASE / "software.cfg").read_text() + CONTEXT
    url = write(tmp_path / "release" / "software.cfg", profile)
    write(tmp_path / "release" / "slapos.cfg", (REPOSITORY / "stack" / "slapos.cfg").read_text())
    write(tmp_path / "release" / "instance.cfg.in", INSTANCE)
    (tmp_path / "software").mkdir()
    software = Software(
        url=str(url),
        software_root=str(tmp_path / "software"),
        buildout=None,
        logger=log,
        shared_part_list=f"\n{tmp_path}/shared",
    )
    software.install()
    software.install()
    built = Path(software.software_path)
    assert (built / "instance.cfg").exists()
    assert not list((built / "eggs").iterdir())

    partition = tmp_path / "partition"
    tail = importlib.resources.files("slapos.grid") / "templates" / "buildout-tail.cfg.in"
    names = re.findall(r"%\((\w+)\)s", tail.read_text())
    write(
        partition / "buildout.cfg",
        (built / "instance.cfg").read_text()
        + "\n\n"
        + tail.read_text() % {**dict.fromkeys(names, ""), "computer_id": "C1"},
    )
    launchBuildout(str(partition), str(built / "bin" / "buildout"), log)
    out = json.loads((partition / "out").read_text())
    assert out["computer"] == "C1"
    assert str(tmp_path / "shared") in out["shared"]
