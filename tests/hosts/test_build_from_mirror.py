# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that reaches nothing but the master and a mirror builds a release of this repository."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from operators import REPOSITORY, Operator, made_operator

from slapos_wendelin.lab import Lab
from slapos_wendelin.lab.polling import until
from slapos_wendelin.mirror.filling import Filler
from slapos_wendelin.mirror.folder import MirrorFolder
from slapos_wendelin.mirror.needs import TOOLKIT_LOCK, read_needs

#: What the release software/neo is made of, and where the host has it.
FILES = (
    *("component/neoppod", "stack/neo", "software/neo", "slapos_wendelin", "requirements"),
    *("stack/slapos.cfg", "stack/slapos-wendelin.cfg"),
    *("pyproject.toml", "setup.py", "README.md", "LICENSE"),
)
RELEASE = "/usr/local/share/wendelin"
PORT = 5003


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a mirror of what the release needs, filled by this machine."""
    release, folder = tmp_path_factory.mktemp("release"), tmp_path_factory.mktemp("mirror")
    put_neo(release)
    needs = read_needs(release)
    # The toolkit is sent by whoever joins the host.
    needs.locks.remove(release / TOOLKIT_LOCK)
    outcome = Filler(MirrorFolder(folder)).fill(needs, lambda _: None)
    assert not outcome.missing, outcome
    return folder


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Yield the operator of a master in a lab with one bare host."""
    with Lab.build({"paris": 1}) as lab:
        operator = made_operator(lab, tmp_path_factory)
        yield operator
        operator.stop_master()


@pytest.fixture
def served(cloud: Operator, mirror: Path) -> Iterator[tuple[str, Path]]:
    """Yield the mirror's URL in the lab, and the log of who has asked for what."""
    log = cloud.folder / "mirror.log"
    address = cloud.lab.address
    serve = [sys.executable, "-m", "http.server", "--bind", address, str(PORT)]
    with log.open("w") as stream:
        server = cloud.lab.master.popen(serve, cwd=mirror, stdout=stream, stderr=stream)
    yield f"http://{address}:{PORT}", log
    server.kill()
    server.wait()


def put_neo(folder: Path) -> None:
    """Put the release software/neo into a folder."""
    for name in FILES:
        source, target = REPOSITORY / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def software(cloud: Operator) -> dict[str, Any]:
    """Return what the master knows of the one release of the cloud."""
    (found,) = json.loads(cloud.slapos("cluster", "status", "--json", status=None).stdout)[
        "software"
    ]
    return found


def test_a_host_without_a_way_to_the_internet_builds_neo_from_a_mirror(
    cloud: Operator, served: tuple[str, Path]
) -> None:
    host, (url, log) = cloud.lab.host("paris-1"), served
    put_neo(host.path(RELEASE))
    outcome = cloud.join(host, "--source-mirror", url, "--compile", "never")
    assert outcome["result"] == "joined", outcome
    cloud.slapos("supply", f"{RELEASE}/software/neo/software.cfg", host.name)

    def is_built() -> bool:
        found = software(cloud)
        assert not found["error"], found["error"]
        return found["reported_state"] == "available"

    until(is_built, "the release is built", 300)
    fetched = log.read_text()
    assert "GET /python/files/neoppod-1.12.0.tar.gz" in fetched
    assert host.run("sh", "-c", "/srv/slapos-wendelin/shared/neo/*/bin/neoctl --help").stdout

    # What is not said again stays, what is said empty goes.
    configuration = host.path("/etc/opt/slapos/slapos.cfg")
    assert cloud.join(host)["result"] == "unchanged"
    assert f"source-mirror = {url}" in configuration.read_text()
    assert cloud.join(host, "--source-mirror", "")["result"] == "joined"
    assert configuration.read_text().endswith("\n[builds]\ncompile = never\n")


def test_a_host_refuses_a_folder_that_it_does_not_have(cloud: Operator) -> None:
    host = cloud.lab.add_hosts([("paris", "paris-2")])[0]
    outcome = cloud.join(host, "--source-mirror", "/srv/no-mirror", status=1)
    assert "source-mirror is /srv/no-mirror, and the host has no such folder" in outcome["error"]
    assert not host.path("/opt/slapos-wendelin").exists()
