# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``./wendelin doctor`` names what this machine lacks."""

import os
import subprocess
from pathlib import Path

import pytest
from buildout_runs import write

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def doctor(tmp_path):
    """Return a function that runs the doctor where dpkg lacks some packages."""

    def run(*lacking):
        program = f"""\
            #!/bin/sh
            for last in "$@"; do :; done
            for name in {" ".join(lacking)}; do
                [ "$name" != "$last" ] || exit 1
            done
            echo ii
            """
        write(tmp_path / "bin" / "dpkg-query", program).chmod(0o755)
        path = f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [REPOSITORY / "wendelin", "doctor"],
            env=os.environ | {"PATH": path, "WENDELIN_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_packages_that_compiling_needs_are_one_line_to_install(doctor):
    done = doctor("cmake", "libsnappy-dev")
    assert "component/mariadb) it also needs: cmake libsnappy-dev\n" in done.stdout
    assert "--no-install-recommends cmake libsnappy-dev\n" in done.stdout


def test_all_others_do_without_what_compiling_needs(doctor):
    assert doctor("cmake").returncode == doctor().returncode


def test_nothing_is_said_of_compiling_when_all_is_there(doctor):
    assert "compile" not in doctor().stdout
