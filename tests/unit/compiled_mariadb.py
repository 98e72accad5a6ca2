# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MariaDB that the profile compiles, for tests that need it and do not want to compile it."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]

#: Why tests are skipped, and what makes them run.
NO_HOME = "WENDELIN_HOME does not say where MariaDB may be: ./wendelin test"
NOT_COMPILED = "MariaDB is not compiled: ./wendelin build component/mysqlclient does it"


class Compiled(NamedTuple):
    """What the profile gives."""

    #: Folder of MariaDB.
    mariadb: Path
    #: The wheel of mysqlclient.
    wheel: Path


def find_compiled(folder: Path) -> Compiled | str:
    """Return what is compiled, or is in a cache of compiled parts; or why there is nothing.

    :param folder: an empty one, for buildout.
    """
    home = os.environ.get("WENDELIN_HOME")
    if not home:
        return NO_HOME
    parts = Path(home, "parts")
    downloads = Path(home, "cache", "download")
    for path in (parts, downloads):
        path.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [
            Path(sys.executable).with_name("buildout"),
            f"-c{REPOSITORY}/component/mysqlclient/buildout.cfg",
            f"buildout:directory={folder}",
            f"buildout:shared-part-list={parts}",
            f"buildout:download-cache={downloads}",
            "buildout:parts=mariadb mysqlclient",
        ],
        cwd=folder,
        env=os.environ | {"WENDELIN_COMPILE": "never"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if "WENDELIN_COMPILE=never forbids to compile it" in done.stdout:
        return NOT_COMPILED
    assert done.returncode == 0, done.stdout
    installed = configparser.RawConfigParser(strict=False)
    installed.read(folder / ".installed.cfg")
    return Compiled(Path(installed["mariadb"]["location"]), Path(installed["mysqlclient"]["wheel"]))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The compiled MariaDB; without it, tests are skipped."""
    found = find_compiled(tmp_path_factory.mktemp("buildout"))
    if isinstance(found, str):
        pytest.skip(found)
    return found
