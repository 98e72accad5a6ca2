# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that reaches nothing but the master and a mirror builds a release of this repository.

That with MariaDB is the cold build, which takes a quarter of an hour of two processors:
``sudo WENDELIN_COLD_BUILD=1 ./wendelin test tests/hosts/test_build_from_mirror.py``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from operators import REPOSITORY, Operator, made_operator, serving

from slapos_wendelin.lab import Lab
from slapos_wendelin.lab.polling import until
from slapos_wendelin.mirror.filling import Filler
from slapos_wendelin.mirror.folder import MirrorFolder
from slapos_wendelin.mirror.needs import TOOLKIT_LOCK, read_needs

#: What every release is made of, and what the releases are, and where the host has them.
COMMON = (
    *("slapos_wendelin", "requirements", "stack/slapos.cfg", "stack/slapos-wendelin.cfg"),
    *("pyproject.toml", "setup.py", "README.md", "LICENSE"),
)
NEO = ("component/neoppod", "stack/neo", "software/neo")
WITH_MARIADB = ("component", "stack", "software", "instance-profiles")
RELEASE = "/usr/local/share/wendelin"
SHARED = "/srv/slapos-wendelin/shared"
COLD_BUILD = bool(os.environ.get("WENDELIN_COLD_BUILD"))
PORT = 5003


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a mirror of what the release needs, filled by this machine."""
    release, folder = tmp_path_factory.mktemp("release"), tmp_path_factory.mktemp("mirror")
    put(release, *COMMON, *(WITH_MARIADB if COLD_BUILD else NEO))
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
    with serving(cloud.lab, mirror, PORT, log) as url:
        yield url, log


def put(folder: Path, *names: str) -> None:
    """Put files and folders of this repository into a folder."""
    for name in names:
        source, target = REPOSITORY / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)


def build(cloud: Operator, release: str, seconds: float) -> None:
    """Have a release built on the host of the cloud, and wait for it."""
    url = f"{RELEASE}/software/{release}/software.cfg"
    cloud.slapos("supply", url, "paris-1")

    def is_built() -> bool:
        status = json.loads(cloud.slapos("cluster", "status", "--json", status=None).stdout)
        (found,) = [known for known in status["software"] if known["url"] == url]
        assert not found["error"], found["error"]
        return found["reported_state"] == "available"

    until(is_built, f"{release} is built", seconds, interval=2)


def test_a_host_without_a_way_to_the_internet_builds_neo_from_a_mirror(
    cloud: Operator, served: tuple[str, Path]
) -> None:
    host, (url, log) = cloud.lab.host("paris-1"), served
    put(host.path(RELEASE), *COMMON, *NEO)
    outcome = cloud.join(host, "--source-mirror", url, "--compile", "never")
    assert outcome["result"] == "joined", outcome
    build(cloud, "neo", 900)
    assert "GET /python/files/neoppod-1.12.0.tar.gz" in log.read_text()
    assert host.run("sh", "-c", f"{SHARED}/neo/*/bin/neoctl --help").stdout

    # What is not said again stays, what is said empty goes.
    configuration = host.path("/etc/opt/slapos/slapos.cfg")
    assert cloud.join(host)["result"] == "unchanged"
    assert f"source-mirror = {url}" in configuration.read_text()
    assert cloud.join(host, "--source-mirror", "")["result"] == "joined"
    assert configuration.read_text().endswith("\n[builds]\ncompile = never\n")


@pytest.mark.skipif(not COLD_BUILD, reason="WENDELIN_COLD_BUILD=1 asks for it: 15 minutes")
def test_a_host_without_a_way_to_the_internet_compiles_the_release_with_mariadb(
    cloud: Operator, served: tuple[str, Path]
) -> None:
    host, (url, log) = cloud.lab.host("paris-1"), served
    put(host.path(RELEASE), *COMMON, *WITH_MARIADB)
    cloud.join(host, "--source-mirror", url, "--compile", "allowed")
    build(cloud, "wendelin-mariadb", 3000)
    assert re.search("GET /sources/[0-9a-f]+/mariadb-", log.read_text())
    for check in (
        "{}/mariadb/*/bin/mariadbd --version",
        "ls {}/mariadb/*/lib/plugin/ha_rocksdb.so {}/neo/*/lib/python3*/site-packages/MySQLdb",
        "{}/analytics/*/bin/python -c 'import sklearn'",
    ):
        host.run("sh", "-c", check.replace("{}", SHARED))


def test_a_host_refuses_a_folder_that_it_does_not_have(cloud: Operator) -> None:
    host = cloud.lab.add_hosts([("paris", "paris-2")])[0]
    outcome = cloud.join(host, "--source-mirror", "/srv/no-mirror", status=1)
    assert "source-mirror is /srv/no-mirror, and the host has no such folder" in outcome["error"]
    assert not host.path("/opt/slapos-wendelin").exists()
