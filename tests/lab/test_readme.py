# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of the README does what it says."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from environment import REPOSITORY, Environment, wait_for

#: What the outcome of a command shows. Commands that change the environment have tests of their
#: own: up and down in test_up.py, one storage more in test_change.py; test is this run.
SHOWN = {
    "./wendelin status": "neo-storage-2",
    "./wendelin run slapos request wendelin-cluster": "zodb-uri",
    "./wendelin run slapos cluster neo pt wendelin-cluster": "neo-storage-2 (",
    "./wendelin run neoctl print pt": "replicas: 1",
    "./wendelin doctor": "This machine has all that is needed",
}
TESTED_ELSEWHERE = {
    "./wendelin up",
    "./wendelin test",
    "./wendelin down",
    "./wendelin run slapos request wendelin-cluster --parameters storage-count=4",
    "./wendelin run slapos request wendelin-cluster --parameters notebook-count=1",
}


def commands_of_the_readme() -> set[str]:
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    blocks = [line.partition("#")[0].strip() for line in lines if line.startswith("    ./wendelin")]
    return {*blocks, "./wendelin doctor"}


def test_no_command_of_the_readme_is_without_a_test() -> None:
    assert commands_of_the_readme() == {*SHOWN, *TESTED_ELSEWHERE}


@pytest.mark.parametrize("command", SHOWN)
def test_a_command_of_the_readme_works(environment: Environment, command: str) -> None:
    environment.cluster.wait_until_well()

    def run() -> subprocess.CompletedProcess[str] | None:
        done = environment.wendelin(*shlex.split(command)[1:], status=None)
        return done if done.returncode == 0 else None

    # A promise that was under way before all was well tells afterwards of what was.
    assert SHOWN[command] in wait_for(run, f"{command} ends well").stdout


def test_the_lines_of_env_make_the_toolkit_usable(environment: Environment) -> None:
    script = 'eval "$(./wendelin env)" && slapos --version && buildout --version && neoctl --help'
    shell = subprocess.run(
        ["bash", "-c", script],
        cwd=environment.source,
        env=environment.variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shell.returncode == 0, shell.stderr
    assert "usage: neoctl" in shell.stdout


def test_status_speaks_json_to_programs(environment: Environment) -> None:
    answer = environment.wendelin("status", "--json", status=None)
    assert '"running": true' in answer.stdout
    assert '"neo-storage-2"' in answer.stdout
