# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of processes that are found, frozen and killed together."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from slapos_wendelin.errors import MissingRequirementError
from slapos_wendelin.lab.polling import until

#: How the names of labs' control groups begin.
PREFIX = "wendelin-lab-"


def groups_of_lab(name: str) -> Path:
    """Return the folder in which a lab has its control groups.

    Raises MissingRequirementError where the machine has no tree of version 2.
    """
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place) / f"{PREFIX}{name}"
    raise MissingRequirementError(
        "this machine has no control groups of version 2 mounted",
        "mount them: mkdir -p /sys/fs/cgroup/unified && "
        "mount -t cgroup2 none /sys/fs/cgroup/unified",
    )


class ControlGroup:
    """A control group: what is started in it stays in it, with all that it starts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Make the group, or use what is there."""
        self.path.mkdir(parents=True, exist_ok=True)

    def try_to_remove(self) -> bool:
        """Remove the group; return whether it is gone, which it is not while processes end."""
        try:
            self.path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def command(self, command: list[str]) -> list[str]:
        """Return the command that runs *command* in this group."""
        # 0 means the process that writes.
        script = 'echo 0 > "$0" && exec "$@"'
        return ["/bin/sh", "-c", script, str(self.path / "cgroup.procs"), *command]

    def processes(self) -> list[int]:
        """Return the process ids, as this process sees them."""
        try:
            return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]
        except FileNotFoundError:
            return []

    def init(self) -> int | None:
        """Return the process that is the first of its process namespace, the group's init."""
        depth = {
            process: len(numbers)
            for process in self.processes()
            if (numbers := self.numbers(process)) and numbers[-1] == 1
        }
        # What runs here may have made namespaces of its own, further down.
        return min(depth, key=depth.__getitem__, default=None)

    @staticmethod
    def numbers(process: int) -> list[int]:
        """Return the ids of a process, from this process's namespace down to its own.

        Nothing for a process that is dead.
        """
        try:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
        except OSError:
            return []
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        if fields["State"][0] in "ZX":
            return []
        return [int(number) for number in fields["NSpid"].split()]

    def freeze(self) -> None:
        """Let no process of the group run."""
        self._freeze("1")

    def thaw(self) -> None:
        """Let the processes go on."""
        self._freeze("0")

    def _freeze(self, wish: str) -> None:
        """Ask the kernel to freeze or thaw, and wait until it has."""
        (self.path / "cgroup.freeze").write_text(wish)
        until(
            lambda: f"frozen {wish}" in self._events(),
            f"{self.path.name} is {'frozen' if wish == '1' else 'thawed'}",
        )

    @property
    def is_frozen(self) -> bool:
        """Whether the processes are kept from running."""
        return "frozen 1" in self._events()

    def _events(self) -> list[str]:
        """Return what the kernel says of the group, by lines."""
        try:
            return (self.path / "cgroup.events").read_text().splitlines()
        except FileNotFoundError:
            return []

    def kill_init(self) -> None:
        """Kill the group's init, and with it all that lives in its namespace; wait for the end."""
        while init := self.init():
            try:
                os.kill(init, signal.SIGKILL)
            except ProcessLookupError:
                continue
            until(lambda: self.init() is None, f"the init of {self.path.name} is gone")
