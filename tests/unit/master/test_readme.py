# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the README's section on the master, each run in the order in which they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slapos_command import write_configuration

from slapos_wendelin.free_ports import free_ports

REPOSITORY = Path(__file__).parents[3]
README = (REPOSITORY / "README.md").read_text()
#: What each command prints when it has done what the README says.
SHOWN = {
    "master token": r"[\w.:-]{40,}",
    "configure client": "as user alice",
    "computer token": r"[\w.:-]{40,}",
    "node register": "as computer paris-1",
    "node format": "",
    "cluster product": "wendelin-cluster",
    "cluster status": "paris-1",
    "cluster plan": "wendelin-cluster",
    "request": "wendelin-cluster",
    "cluster history": "operator/alice",
    "master backup": "today.backup",
    "cluster rollback": "wendelin-cluster",
    "computer drain": "paris-1",
    "user remove": "mallory",
    "master check": "",
    "master restore": "",
}
#: Commands that end with another status: a plan of changes; a computer that stays full for now.
STATUSES = {"cluster plan": {2}, "computer drain": {0, 1, 2}, "cluster status": {0, 1}}


def commands_of_the_section() -> list[str]:
    section = README.partition("## The master")[2].partition("\n## ")[0]
    lines = [line.partition(" #")[0].strip() for line in section.splitlines()]
    return [line for line in lines if line.startswith("slapos ") and "COMMAND" not in line]


def name_of(command: str) -> str:
    words = command.split()[1:3]
    return words[0] if words[0] == "request" else " ".join(words)


class DayOne:
    """One machine on which all of the section's commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self.environment = os.environ | {
            "HOME": str(folder),
            "COLUMNS": "200",
            "SLAPOS_CLIENT_CONFIGURATION": str(folder / "client.cfg"),
            "SLAPOS_CONFIGURATION": str(folder / "node" / "slapos.cfg"),
        }
        self.token = ""

    def arguments(self, command: str) -> list[str]:
        """Return the command for this machine."""
        text = command.replace("0.0.0.0:5000", f"127.0.0.1:{self.port}")
        text = text.replace("https://master.example.org:5000", f"https://127.0.0.1:{self.port}")
        text = text.replace("master.example.org", "127.0.0.1")
        text = text.replace("https://example.org/software/wendelin", str(self.folder))
        words = [self.token if word == "TOKEN" else word for word in shlex.split(text)[1:]]
        return [str(self.first_change()) if word == "N" else word for word in words]

    def first_change(self) -> int:
        """Return the number of the change by which the instance came to be."""
        said = self.run(["cluster", "history", "wendelin-cluster", "--json"])
        return json.loads(said.stdout)["changes"][0]["id"]

    def run(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        """Run the slapos command."""
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "slapos_wendelin.cli.entry", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    @contextmanager
    def master(self, command: str) -> Iterator[None]:
        """Run the master for as long as the block runs."""
        arguments = ["-W", "ignore", "-m", "slapos_wendelin.cli.entry", *self.arguments(command)]
        with subprocess.Popen(
            [sys.executable, *arguments], cwd=self.folder, stderr=subprocess.DEVNULL
        ) as process:
            try:
                self.wait_for_port()
                yield
            finally:
                process.terminate()

    def wait_for_port(self) -> None:
        """Wait until the master accepts connections."""
        deadline = time.monotonic() + 240
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                return


def prepare(day: DayOne) -> None:
    """Make what the README takes for granted: a release, a computer's definition, a bad user."""
    (day.folder / "software.cfg").write_text("[buildout]\nparts =\n")


def test_no_command_of_the_section_is_without_a_test() -> None:
    assert {name_of(each) for each in commands_of_the_section()} == {*SHOWN, "master start"}


def test_the_commands_of_the_section_work_one_after_the_other(tmp_path: Path) -> None:
    day = DayOne(tmp_path)
    prepare(day)
    start, *commands = commands_of_the_section()
    last = commands.pop()
    with day.master(start):
        for command in commands:
            check(day, command)
    check(day, last)


def check(day: DayOne, command: str) -> None:
    """Run a command of the README and look at what it says."""
    name = name_of(command)
    arguments = day.arguments(command)
    if name == "node register":
        arguments += ["--software-root", str(day.folder / "soft")]
        arguments += ["--instance-root", str(day.folder / "inst")]
    if name == "node format":
        configure_format(day)
    if name == "user remove":
        let_in(day, "mallory")
    done = day.run(arguments)
    said = done.stdout + done.stderr
    assert done.returncode in STATUSES.get(name, {0}), (command, said)
    shown = re.search(SHOWN[name], said, re.MULTILINE)
    assert shown, (command, said)
    if name.endswith("token"):
        day.token = shown[0]


def let_in(day: DayOne, user: str) -> None:
    """Let a user in from this machine, with files of its own."""
    said = day.run(["user", "token", user, "--role", "viewer", "--json"]).stdout
    place = day.folder / user
    place.mkdir()
    master = f"https://127.0.0.1:{day.port}"
    join = ["configure", "client", "--master-url", master, "--token", json.loads(said)["token"]]
    assert day.run([*join, "--cfg", str(place / "client.cfg")]).returncode == 0


def configure_format(day: DayOne) -> None:
    """Let format make its partitions in the test's folder, without root."""
    joined = day.folder / "node" / "slapos.cfg"
    certificates = [
        line
        for line in joined.read_text().partition("[slapformat]")[0].splitlines()
        if line.startswith(("key_file", "cert_file", "certificate_r"))
    ]
    written = write_configuration(day.folder, f"https://127.0.0.1:{day.port}/", partitions=4)
    text = written.read_text().replace("computer_id = paris", "computer_id = paris-1")
    joined.write_text(text.replace("[slapos]\n", "[slapos]\n" + "\n".join(certificates) + "\n", 1))
