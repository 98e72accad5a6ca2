# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users get when they ask the slapos command for help."""

from __future__ import annotations

import subprocess
import sys

import pytest


def help_of(*words: str) -> str:
    command = [sys.executable, "-m", "slapos_wendelin.cli.entry", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["request", "--help"], "--parameters-file"),
        (["request", "cluster", "-h"], "--parameters-file"),
        (["master", "start", "--help"], "master start [-h]"),
        (["cluster", "--help"], "cluster rollback"),
        (["cluster", "neo", "--help"], "cluster neo balance"),
    ],
)
def test_a_command_tells_of_itself(words: list[str], shown: str):
    text = help_of(*words)
    assert shown in text
    assert "cachelookup" not in text


def test_without_a_command_all_are_told():
    assert "cachelookup" in help_of("--help")


def test_the_shell_completes_commands_of_three_words():
    command = [sys.executable, "-m", "slapos_wendelin.cli.entry", "complete"]
    script = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "cmds_cluster_neo='balance cancel cells follow nodes operations pack pt tweak'" in script
    assert "--without" in script.partition("cmds_cluster_neo_tweak='")[2].partition("\n")[0]
