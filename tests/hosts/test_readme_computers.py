# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the README's section on adding computers, run as they stand there."""

from __future__ import annotations

import shlex

import pytest
import yaml
from operators import REPOSITORY, made_operator

from slapos_wendelin.lab import Lab

README = (REPOSITORY / "README.md").read_text()
#: What each command prints when it has done what the README says.
SHOWN = {
    "computer join ssh --dry-run": "would install the toolkit",
    "computer join ssh": "joined",
    "computer join --inventory": "joined",
    "computer show": "paris-1",
    "computer leave": "is no computer any more",
}


def commands() -> list[str]:
    section = README.partition("## Add computers")[2].partition("\n## ")[0]
    lines = [line.partition(" #")[0].strip() for line in section.splitlines()]
    return [line for line in lines if line.startswith("slapos ")]


def name_of(command: str) -> str:
    words = command.split()
    name = " ".join(words[1:3])
    if name == "computer join":
        name += " --inventory" if "--inventory" in words else " ssh"
    return f"{name} --dry-run" if "--dry-run" in words else name


def test_no_command_of_the_section_is_without_a_test() -> None:
    assert [name_of(each) for each in commands()] == list(SHOWN)


def test_the_commands_of_the_section_work_one_after_the_other(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with Lab.build({"paris": 1, "tokyo": 1}) as lab:
        operator = made_operator(lab, tmp_path_factory)
        far = {"address": lab.host("tokyo-1").address, "user": "admin"}
        inventory = {"datacenters": {"tokyo": {"hosts": [far]}}}
        (operator.folder / "computers.yaml").write_text(yaml.safe_dump(inventory))
        # What stands in ~/.ssh of an operator.
        (operator.folder / ".ssh").mkdir()
        (operator.folder / ".ssh" / "config").write_text(f"Host *\n  IdentityFile {lab.key}\n")
        known = operator.folder / ".ssh" / "known_hosts"
        known.write_text(lab.known_hosts.read_text())
        for command in commands():
            text = command.replace("192.0.2.10", lab.host("paris-1").address)
            said = operator.slapos(*shlex.split(text)[1:])
            assert SHOWN[name_of(command)] in said.stdout, (command, said.stdout)
        operator.stop_master()
