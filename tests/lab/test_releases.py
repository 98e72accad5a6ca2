# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases are built by buildout alone, with no master around."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2]
PARTS = ("buildout.cfg", "component", "instance-profiles", "software", "stack", "slapos_wendelin")
FILES = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture
def checkout(tmp_path):
    """A copy of the sources in which nothing was built."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in (*PARTS, *FILES):
        if (SOURCE / name).is_dir():
            shutil.copytree(SOURCE / name, folder / name)
        else:
            shutil.copy(SOURCE / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def shared_parts(tmp_path_factory):
    """The folder of shared parts, which are kept for the next run."""
    cache = os.environ.get("WENDELIN_CACHE")
    folder = Path(cache, "tests", "parts") if cache else tmp_path_factory.mktemp("parts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def buildout(folder, shared_parts, *arguments):
    command = [Path(sys.executable).with_name("buildout"), *arguments]
    option = f"buildout:shared-part-list={shared_parts}"
    result = subprocess.run(
        [*command, option],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:]


def said_by(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_buildout_at_the_root_builds_the_release_wendelin(checkout, shared_parts):
    buildout(checkout, shared_parts)
    assert "usage: neoctl" in said_by(checkout / "bin" / "neoctl", "--help")
    script = "import neo.client, sklearn, zarr, dask, slapos_wendelin.neo; print('all there')"
    assert said_by(checkout / "bin" / "analytics-python", "-c", script) == "all there\n"
    assert "neo-storage = instance-neo-storage:output" in (checkout / "instance.cfg").read_text()


def test_buildout_in_the_folder_of_a_release_builds_it(checkout, shared_parts):
    buildout(checkout / "software" / "neo", shared_parts, "-c", "software.cfg")
    installed = (checkout / "software" / "neo" / ".installed.cfg").read_text()
    (python,) = [line for line in installed.splitlines() if line.startswith("python = ")]
    assert said_by(python.partition(" = ")[2], "-c", "import neo.storage.app; print(1)") == "1\n"


def test_a_template_that_was_changed_is_refused_by_name(checkout, shared_parts):
    template = checkout / "instance-profiles" / "instance-neo-storage.cfg.in"
    template.write_text(template.read_text() + "# changed\n")
    with pytest.raises(AssertionError, match=r"instance-neo-storage\.cfg\.in"):
        buildout(checkout, shared_parts)
