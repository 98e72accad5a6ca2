# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first process of a lab: what ends with it, and with what it ends."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slapos_wendelin.errors import CommandError
from slapos_wendelin.lab.cgroups import ControlGroup, groups_of_lab
from slapos_wendelin.lab.errors import LabError
from slapos_wendelin.lab.namespaces import Place
from slapos_wendelin.lab.polling import until

#: Where labs keep their files: only root makes folders there.
FOLDER = Path("/var/lib/wendelin-lab/labs")
#: The name of the master's place: of its control group, and in the network.
MASTER = "master"

# Waits for the end of the lab's first process, and then removes what is left on this machine.
_SCRIPT = """\
group=$1 folder=$2
shift 2
unshare --mount --net --pid --ipc --fork --kill-child --mount-proc -- /bin/sh -c '
    echo 0 > "$0/cgroup.procs"
    exec 3<&0
    "$@" <&3 3<&- >/dev/null &
    exec 3<&-
    # While the shell waits, it buries orphans too.
    wait' "$group/master" "$@"
rm -rf "$folder"
while [ -d "$group" ]; do
    find "$group" -depth -type d -exec rmdir {} \\; 2> /dev/null || sleep 0.02
done
"""


class Keeper:
    """Keeps the namespaces of one lab; what runs in them is killed when it ends.

    :param name: the lab's.
    """

    def __init__(self, name: str) -> None:
        check_name(name, "lab")
        self.name = name
        self.folder = FOLDER / name
        self.groups = groups_of_lab(name)
        # Programs of the caller find the files of this machine, from where the caller is.
        self.master = Place(
            MASTER,
            ControlGroup(self.groups / MASTER),
            ("--mount", "--ipc", "--net", "--pid"),
            folder=lambda: str(Path.cwd()),
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, stays: bool) -> None:
        """Make the namespaces, and a folder for the lab's files.

        :param stays: keep them when this process ends.
        """
        with _all_labs():
            _sweep()
            if self.folder.exists():
                raise LabError(f"there is a lab {self.name!r} already", "./wendelin lab down")
            self.folder.mkdir()
            self.master.group.make()
            # The input of cat ends when the process is gone that has the other end of the pipe.
            program = ["sleep", "infinity"] if stays else ["cat"]
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "sh", str(self.groups), str(self.folder), *program],
                stdin=subprocess.DEVNULL if stays else subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                start_new_session=True,
            )
            until(lambda: self.master.runs or self._has_failed(), "the lab's namespaces are made")

    def _has_failed(self) -> bool:
        """Raise CommandError when the namespaces could not be made; else return False."""
        process = self._process
        if process is None or process.poll() is None:
            return False
        words = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
        raise CommandError(
            f"the namespaces of a lab cannot be made: {words}",
            "use a machine, or a container with all rights, whose kernel lets root make them",
        )

    def end(self) -> None:
        """End all that runs in the lab, and wait until nothing of it is left."""
        self.master.group.kill_init()
        if self._process is not None:
            if self._process.stdin:
                self._process.stdin.close()
            self._process.wait()
        until(
            lambda: not self.folder.exists() and not self.groups.exists(),
            f"nothing is left of the lab {self.name}",
        )


def check_name(name: str, what: str) -> None:
    """Raise LabError for what cannot be the name of a lab, a data center or a host."""
    if not re.fullmatch("[a-z][a-z0-9-]{0,40}", name):
        raise LabError(
            f"{name!r} is no name for a {what}", "use small letters, digits and -, a letter first"
        )


def standing() -> list[str]:
    """Return the names of the labs that stand."""
    names = [path.name for path in FOLDER.iterdir()] if FOLDER.exists() else []
    return sorted(name for name in names if Keeper(name).master.runs)


@contextmanager
def _all_labs() -> Iterator[None]:
    """Let nobody else make a lab or sweep for a moment."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    FOLDER.chmod(0o700)
    with (FOLDER.parent / "labs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep() -> None:
    """Remove the files of labs that ended with the power of this machine."""
    for folder in FOLDER.iterdir():
        if not Keeper(folder.name).groups.exists():
            shutil.rmtree(folder)
