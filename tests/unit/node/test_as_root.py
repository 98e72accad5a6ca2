# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""As root, everything in a partition is done by the partition's user."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from computer import Computer, wait_for

#: Users that every Debian has: the one who builds software, and those of three partitions.
USERS = ("games", "daemon", "bin", "sys")

TELLS_USER = """\
import os
from zope.interface import implementer
from slapos.grid.promise import interface
from slapos.grid.promise.generic import GenericPromise

@implementer(interface.IPromise)
class RunPromise(GenericPromise):
    def sense(self):
        self.logger.info('user %s %s %s', os.getuid(), os.getgid(), os.getgroups())
"""


def others_have_python() -> bool:
    """Return whether another user can run this Python with the toolkit."""
    if os.geteuid() != 0:
        return False
    command = ["setpriv", "--reuid=games", "--regid=games", "--clear-groups", sys.executable]
    trial = subprocess.run(
        [*command, "-c", "import slapos_wendelin.node"], capture_output=True, check=False, cwd="/"
    )
    return trial.returncode == 0


pytestmark = pytest.mark.skipif(
    not others_have_python(), reason="needs root, and a Python that other users can run"
)


@pytest.fixture(scope="module")
def rooted() -> Iterator[Computer]:
    """A computer of root's, whose partitions have users of their own."""
    folder = Path(tempfile.mkdtemp(prefix="rooted-"))
    folder.chmod(0o755)
    try:
        with Computer.running(folder, partitions=3, users=USERS) as made:
            yield made
    finally:
        shutil.rmtree(folder)


def test_buildout_programs_and_promises_are_those_of_the_partitions_user(rooted: Computer) -> None:
    rooted.request("one")
    rooted.request("two")
    rooted.wait_until_well("one", "two")
    owners = set()
    for name in ("one", "two"):
        folder = rooted.partition(name)
        owner = folder.stat()
        owners.add(owner.st_uid)
        assert (folder / "typed").stat().st_uid == owner.st_uid
        assert (folder / ".installed.cfg").stat().st_uid == owner.st_uid
        pid = int((folder / "var/run/service.pid").read_text())
        assert psutil.Process(pid).uids() == (owner.st_uid,) * 3
        rooted.add_promise(name, "plugin/tells-user.py", TELLS_USER)
        rooted.request(name, x="1")
        wait_for(lambda: rooted.promise(name, "tells-user"), "the promise runs")  # noqa: B023
        user = f"user {owner.st_uid} {owner.st_gid} [{owner.st_gid}]"
        assert rooted.promise(name, "tells-user")["message"] == user
        result = folder / ".slapgrid/promise/result/tells-user.status.json"
        assert result.stat().st_uid == owner.st_uid
    assert len(owners) == 2
    assert 0 not in owners


def test_partitions_without_a_user_of_their_own_are_refused(rooted: Computer) -> None:
    rooted.request("three")
    rooted.wait_until_well("three")
    folder = rooted.partition("three")
    owner = folder.stat()
    os.chown(folder, 0, 0)
    rooted.request("three", x="1")
    rooted.wait_for_error("three", "belongs to root")
    shared_with = pwd.getpwnam(USERS[1])
    other = next(
        each
        for each in rooted.instances.glob("slappart*")
        if each.stat().st_uid == shared_with.pw_uid
    )
    os.chown(folder, shared_with.pw_uid, shared_with.pw_gid)
    rooted.wait_for_error("three", f"{folder.name} and {other.name} belong to the same user")
    os.chown(folder, owner.st_uid, owner.st_gid)
    rooted.wait_until_well("three")
