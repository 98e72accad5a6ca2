# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""slapos.core's releases and partitions, which count as complete only when they are on the disk.

A file system keeps the names of new files before it has written what is in them. After a loss of
power a release that was marked as complete, or a partition marked as unchanged, would be empty
files for ever.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slapos.grid import SlapObject

from slapos_wendelin import build_settings
from slapos_wendelin.files import sync_file_systems, write_atomically

#: The mark of a release that is complete, which slapgrid writes and which is looked for.
COMPLETE = ".completed"


class Software(SlapObject.Software):
    """A release."""

    @property
    def mark(self) -> Path:
        """Says that the release is being built, and since which start of the machine.

        It is beside the release's folder, which may come as a whole.
        """
        return Path(self.software_root, f".{self.software_url_hash}.building")

    def install(self) -> None:
        """Build the release and write it down; what a loss of power has left is built anew."""
        start = start_of_machine()
        if _text(self.mark) not in {start, None}:
            self.logger.info("%s was being built when the machine stopped", self.url)
            self.destroy()
        write_atomically(self.mark, start)
        super().install()
        sync_file_systems([Path(self.software_path), *folders_of(self.shared_part_list)])
        self._unmark()

    def destroy(self) -> None:
        """Remove the release; what a loss of power leaves of it does not count as complete."""
        folder = Path(self.software_path)
        (folder / COMPLETE).unlink(missing_ok=True)
        sync_file_systems([folder])
        super().destroy()
        sync_file_systems([Path(self.software_root)])
        self._unmark()

    def _additional_buildout_parameters(self, extends_cache: str) -> Generator[str]:
        """Yield options of buildout: where all sources are in a folder, nothing is downloaded."""
        yield from super()._additional_buildout_parameters(extends_cache)
        mirror = os.environ.get(build_settings.VARIABLES[build_settings.MIRROR], "")
        if mirror and build_settings.is_folder(mirror):
            yield "buildout:offline=true"

    def _unmark(self) -> None:
        """Say that the release is not being built any more."""
        self.mark.unlink(missing_ok=True)
        sync_file_systems([self.mark.parent])


class Partition(SlapObject.Partition):
    """A partition."""

    def updateSupervisor(self) -> None:  # noqa: N802 (slapos.core's name)
        """Let supervisord read its configuration, for one partition at a time.

        Whoever is first takes over what has changed of all partitions. While it takes a group of
        programs away and adds it again, another call to stop that group would wait for ever.
        """
        with one_at_a_time(Path(self.supervisord_partition_configuration_dir)):
            super().updateSupervisor()

    def updateSupervisorConfiguration(self) -> None:  # noqa: N802 (slapos.core's name)
        """Let supervisord know the programs, after all that they need is written down."""
        super().updateSupervisorConfiguration()
        self._sync()

    def stop(self) -> None:
        """Let supervisord stop the programs, and write down that they stay so."""
        super().stop()
        self._sync()

    def destroy(self) -> bool:
        """Empty the partition for good: the next instance in it must find nothing."""
        is_empty = bool(super().destroy())
        self._sync()
        return is_empty

    def _sync(self) -> None:
        """Write down the partition, its configuration of supervisord, and its certificate."""
        certificates = [Path(self.cert_file).parent] if self.cert_file else []
        programs = Path(self.supervisord_partition_configuration_dir)
        sync_file_systems([Path(self.instance_path), programs, *certificates])


def use(module: Any) -> None:
    """Let slapos.core's module of slapgrid use these classes."""
    module.Software, module.Partition = Software, Partition


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process at a time be in here for a folder; a process that is killed is out."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def folders_of(shared_part_list: str) -> Iterator[Path]:
    """Yield the folders that shared parts are in."""
    for line in shared_part_list.splitlines():
        if line.strip():
            yield Path(line.strip())


def start_of_machine() -> str:
    """Return what tells one start of this machine, or of the container that it is, from others."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # Containers of one machine have their own first process. Where others' processes are hidden,
    # the machine's start has to do.
    first = (_text(Path("/proc/1/stat")) or "").rpartition(")")[2].split()
    return f"{boot} {first[19] if first else ''}".strip()


def _text(path: Path) -> str | None:
    """Return the text of a file, None when there is none or it may not be read."""
    try:
        return path.read_text()
    except (FileNotFoundError, PermissionError):
        return None
