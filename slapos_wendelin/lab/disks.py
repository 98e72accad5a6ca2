# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of hosts: ext4 in a file, which can fill up and forget what was not synced."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from pathlib import Path

from slapos_wendelin.errors import CommandError
from slapos_wendelin.lab.namespaces import Place
from slapos_wendelin.lab.polling import until

MEBIBYTE = 1 << 20
#: What a disk holds where nobody says it. The file takes only what is written to the disk.
DEFAULT_SIZE = 32768 * MEBIBYTE
#: Ends an ext4 file system at once, without writing anything that is still in memory.
_SHUT_DOWN, _WITHOUT_WRITING = 0x8004587D, 2


class Disk:
    """The disk of one host, mounted in the lab.

    :param folder: a folder of this machine that gets the file and, in the lab, the mount.
    :param place: the lab itself.
    """

    def __init__(self, folder: Path, place: Place) -> None:
        self.image = folder / "disk.img"
        self.mount_point = folder / "disk"
        self.place = place

    @property
    def path(self) -> Path:
        """The disk's content, as this process reaches it."""
        return self.place.path(self.mount_point)

    @property
    def _ballast(self) -> Path:
        """The file that fills the disk; hosts do not see it."""
        return self.path / "ballast"

    def make(self, size: int = DEFAULT_SIZE) -> None:
        """Make an empty disk."""
        self.mount_point.mkdir(parents=True)
        with self.image.open("xb") as image:
            image.truncate(size)
        command = ["mkfs.ext4", "-q", "-F", "-m", "0"]
        if size > 1024 * MEBIBYTE:
            command += ["-J", "size=64"]
        made = subprocess.run(
            [*command, str(self.image)], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise CommandError(f"{self.image} was not made: {made.stderr.strip()}")

    def mount(self) -> None:
        """Mount the disk in the lab, as it was left."""
        # Not with discard: ext4 then discards what was deleted but not synced when power is lost.
        options = "loop,noinit_itable"
        self.place.run("mount", "-o", options, str(self.image), str(self.mount_point))

    @property
    def is_mounted(self) -> bool:
        """Whether the disk is mounted in the lab."""
        mounts = Path(f"/proc/{self.place.init}/mountinfo").read_text().splitlines()
        return any(line.split()[4] == str(self.mount_point) for line in mounts)

    def sync(self) -> None:
        """Write everything down."""
        self.place.run("sync", "-f", str(self.mount_point))

    def lose_power(self) -> None:
        """Forget what was not synced; whoever still uses the disk meets errors."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, _SHUT_DOWN, struct.pack("I", _WITHOUT_WRITING))
        finally:
            os.close(folder)

    def unmount(self) -> None:
        """Unmount the disk, and wait until the kernel knows it no more.

        The mounts of a host end some time after its last process, and the disk with them. Mounted
        anew before, it would be what the kernel still has in memory.
        """
        unmount, look = (
            ("umount", str(self.mount_point)),
            ("losetup", "--noheadings", "--associated"),
        )
        until(
            lambda: self.place.run(*unmount, check=False).returncode == 0,
            f"{self.mount_point} is unmounted",
        )
        until(
            lambda: not self.place.run(*look, str(self.image)).stdout,
            f"{self.image} is not in use",
        )

    def fill(self) -> None:
        """Take all space that is left."""
        with self._ballast.open("ab") as ballast:
            piece = 1024 * MEBIBYTE
            while piece >= self._block_size():
                end = os.fstat(ballast.fileno()).st_size
                try:
                    os.posix_fallocate(ballast.fileno(), end, piece)
                except OSError as error:
                    if error.errno not in {errno.ENOSPC, errno.EFBIG}:
                        raise
                    os.ftruncate(ballast.fileno(), end)
                    piece //= 2

    def free(self) -> None:
        """Give back the space that was taken."""
        self._ballast.unlink(missing_ok=True)

    def _block_size(self) -> int:
        """Return the smallest piece of space."""
        return os.statvfs(self.path).f_frsize

    @property
    def available(self) -> int:
        """Bytes that are free."""
        state = os.statvfs(self.path)
        return state.f_bavail * state.f_frsize
