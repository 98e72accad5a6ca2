# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk of an environment that is small, becomes full and gets room, all by an ordinary user.

A user may mount in a namespace of mounts that is their own. What is mounted is seen by those who
live in it only: the programs of an environment, while it is in the namespace.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

#: Two processes that wait, and say which they are: one that is root in a namespace of users and may
#: mount, and one that is the user again. They end with their input.
_HOLDER = 'echo $$; unshare --user --map-user="$0" --map-group="$1" sh -c "echo \\$\\$; cat"'


class Mounts:
    """A namespace of mounts."""

    def __init__(self, root: int, user: int) -> None:
        """Take the ids of the process that may mount and of the one that is the user."""
        self._as_root = (*_enter(root), "--mount", "--")
        #: Starts the command that follows in the namespace, as the user.
        self.prefix = (*self._as_root, *_enter(user), "--", "env")

    @contextlib.contextmanager
    def small_disk(self, folder: Path, mebibytes: int) -> Iterator[SmallDisk]:
        """Let a folder be on a disk of its own. Nobody may use it at the begin and at the end."""
        aside = f"{folder}.aside"
        size = f"size={mebibytes}m,mode=0700"
        self.run("cp", "--archive", str(folder), aside)
        self.run("mount", "-t", "tmpfs", "-o", size, "small", str(folder))
        self.run("cp", "--archive", f"{aside}/.", str(folder))
        self.run("rm", "--recursive", aside)
        try:
            yield SmallDisk(self, folder)
        finally:
            self.run("cp", "--archive", str(folder), aside)
            self.run("umount", str(folder))
            self.run("rm", "--recursive", str(folder))
            self.run("mv", aside, str(folder))

    def run(self, *command: str) -> str:
        """Run a command that may mount, and return what it says."""
        done = subprocess.run(
            [*self._as_root, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout


class SmallDisk:
    """A disk that becomes full and gets room."""

    def __init__(self, mounts: Mounts, folder: Path) -> None:
        self.mounts = mounts
        self.folder = folder

    def leave(self, mebibytes: int) -> None:
        """Make the disk so large that so much of it is free."""
        told = self.mounts.run("stat", "--file-system", "--format=%S %b %f", str(self.folder))
        block, blocks, free = map(int, told.split())
        size = f"remount,size={block * (blocks - free) + mebibytes * 2**20}"
        # What the disk was mounted with has the user's name outside, which nobody has inside.
        again = ("mount", "--options-mode=ignore", "-o", size)
        self.mounts.run(*again, "small", str(self.folder))


def _enter(process: int) -> tuple[str, ...]:
    """Return the command that enters the users' namespace of a process."""
    return ("nsenter", f"--target={process}", "--user", "--preserve-credentials")


@contextlib.contextmanager
def own_mounts() -> Iterator[Mounts]:
    """Yield a new namespace of mounts, which goes with the last process in it."""
    root = ("unshare", "--user", "--map-root-user", "--mount", "--")
    with subprocess.Popen(
        [*root, "sh", "-c", _HOLDER, str(os.getuid()), str(os.getgid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout
        numbers = [holder.stdout.readline() for _ in range(2)]
        assert all(numbers), "this user may make no namespaces"
        yield Mounts(*map(int, numbers))
