# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent of a real computer is root, and what is done in a partition is done by its user."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from operators import INSTANCES, PATIENCE, RELEASE_ON_HOSTS, Operator, put_release

from slapos_wendelin.lab import Host
from slapos_wendelin.lab.polling import until

TELLS_USER = """\
import os
from zope.interface import implementer
from slapos.grid.promise import interface
from slapos.grid.promise.generic import GenericPromise

@implementer(interface.IPromise)
class RunPromise(GenericPromise):
    def sense(self):
        self.logger.info('user %s %s %s', os.getuid(), os.getgid(), sorted(os.getgroups()))
"""


@pytest.fixture(scope="module")
def computer(computer_of_root: tuple[Operator, Host]) -> Host:
    """Return a computer with the release of the tests."""
    _, host = computer_of_root
    put_release(host)
    return host


@pytest.fixture
def cloud(computer_of_root: tuple[Operator, Host]) -> Operator:
    """Return the operator of the computer's master."""
    return computer_of_root[0]


def request(cloud: Operator, host: Host, name: str, number: int) -> Path:
    """Request an instance, or let it be processed again; return its folder when it is well."""
    cloud.slapos(
        *("request", name, f"{RELEASE_ON_HOSTS}/software.cfg", "--unchecked", "--wait", "300"),
        *("--node", f"computer_guid={host.name}", "--parameters", f"number={number}"),
    )
    return host.path(f"{INSTANCES}/{cloud.instance(name)['partition']}")


def error_of(cloud: Operator, name: str) -> str:
    """Return the error that the master knows of an instance."""
    return (cloud.instance(name)["error"] or {"text": ""})["text"]


def test_buildout_programs_and_promises_are_those_of_the_partitions_user(
    cloud: Operator, computer: Host
) -> None:
    owners = set()
    for name in ("one", "two"):
        folder = request(cloud, computer, name, 1)
        owner = folder.stat()
        owners.add(owner.st_uid)
        # Nothing of the instance says that its program has begun.
        until((folder / "who").exists, "the program tells who it is")
        for path in (".installed.cfg", "etc/service/greeter", "who"):
            assert (folder / path).stat().st_uid == owner.st_uid
        of_user = [str(owner.st_uid)] * 4
        until(lambda: of_user in users_of_sleep(computer), "the program is the user's")  # noqa: B023
        plugin = folder / "etc" / "plugin" / "tells-user.py"
        plugin.parent.mkdir()
        # slapos.core writes beside the plugin.
        os.chown(plugin.parent, owner.st_uid, owner.st_gid)
        # The agent may look at any moment.
        fresh = folder / "fresh-promise"
        fresh.write_text(TELLS_USER)
        fresh.rename(plugin)
        request(cloud, computer, name, 2)
        result = folder / ".slapgrid/promise/result/tells-user.status.json"
        until(result.exists, "the promise runs", PATIENCE)
        told = json.loads(result.read_text())["result"]["message"]
        groups = computer.run("id", "--groups", str(owner.st_uid)).stdout.split()
        expected = f"user {owner.st_uid} {owner.st_gid} {sorted(map(int, groups))}"
        assert told == expected
        assert 0 not in map(int, groups)
        assert result.stat().st_uid == owner.st_uid
    assert len(owners) == 2
    assert 0 not in owners


def users_of_sleep(computer: Host) -> list[list[str]]:
    """Return all users of each process that sleeps on a computer."""
    users = computer.run("ps", "-C", "sleep", "-o", "ruid=,euid=,suid=,fuid=").stdout
    return [line.split() for line in users.splitlines()]


def test_partitions_without_a_user_of_their_own_are_refused(
    cloud: Operator, computer: Host
) -> None:
    folder = request(cloud, computer, "three", 1)
    owner = folder.stat()
    release = f"{RELEASE_ON_HOSTS}/software.cfg"
    os.chown(folder, 0, 0)
    cloud.slapos("request", "three", release, "--unchecked", "--parameters", "number=2")
    until(lambda: "belongs to root" in error_of(cloud, "three"), "it is refused", PATIENCE)
    other = next(each for each in folder.parent.glob("slappart*") if each.name != folder.name)
    os.chown(folder, other.stat().st_uid, other.stat().st_gid)
    same = f"{folder.name} and {other.name} belong to the same user"
    until(lambda: same in error_of(cloud, "three"), "it is refused", PATIENCE)
    os.chown(folder, owner.st_uid, owner.st_gid)
    until(lambda: cloud.instance("three")["settled"], "it is well", PATIENCE)


def test_a_program_that_dies_is_started_again_and_the_operator_sees_it(
    cloud: Operator, computer: Host
) -> None:
    folder = request(cloud, computer, "four", 1)
    user = str(folder.stat().st_uid)
    kill = ("pkill", "-KILL", "-u", user, "sleep")
    until(
        lambda: not computer.run(*kill, check=False).returncode, "the program runs, and is killed"
    )
    until(lambda: cloud.instance("four")["deaths"], "the master knows", PATIENCE)
    (died,) = cloud.instance("four")["deaths"]
    assert (died["program"], died["count"]) == ("greeter", 1)
    assert "greeter died once" in cloud.slapos("cluster", "status", "four").stdout
    assert "greeter of four once" in cloud.slapos("computer", "show", computer.name).stdout
    until(lambda: computer.run("pgrep", "-u", user, "sleep", check=False).stdout, "it runs again")
