# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host: namespaces, a root and a disk of its own, and an SSH server."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko

from slapos_wendelin.errors import CommandError
from slapos_wendelin.lab.bare_system import UpperLayer, make_bare_system
from slapos_wendelin.lab.cgroups import ControlGroup
from slapos_wendelin.lab.disks import DEFAULT_SIZE, Disk
from slapos_wendelin.lab.errors import LabError
from slapos_wendelin.lab.namespaces import Place
from slapos_wendelin.lab.polling import until
from slapos_wendelin.lab.ssh import ADMINISTRATOR, PORT, KeyPair, log_in, write_server

if TYPE_CHECKING:
    from slapos_wendelin.lab.lab import Lab

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}

#: What the first process of a host does.
BOOT = """\
set -eu
disk=$1 root=$2 name=$3
shift 3
mount -t overlay -o "lowerdir=/,upperdir=$disk/changes,workdir=$disk/work" lab "$root"
cd "$root"
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o mode=755,nosuid dev dev
for device in null zero full random urandom tty; do
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mount -t tmpfs -o mode=1777,nosuid,nodev shm dev/shm
mount -t tmpfs -o mode=755,nosuid,nodev run run
mkdir -m 1777 run/lock
mkdir run/sshd
hostname "$name"
pivot_root . mnt
cd /
umount -l /mnt
# The lab says when the network device is there.
read -r _
exec </dev/null
find /tmp -mindepth 1 -delete
ip link set lo up
ip address add "$@" dev eth0
ip link set eth0 up
/usr/sbin/sshd
(
    for script in /etc/rc2.d/S*; do
        [ ! -x "$script" ] || "$script" start || echo "$script failed"
    done
    [ ! -x /etc/rc.local ] || /etc/rc.local
) &
# While the shell waits, it buries orphans too.
sleep infinity &
wait
"""


@dataclass(frozen=True)
class HostDescription:
    """What is kept about a host."""

    name: str
    data_center: str
    #: Numbers of the data center and of the host in it.
    numbers: tuple[int, int]
    address: str
    #: The public key of its SSH server.
    host_key: str


class Host(Place):
    """One host of a lab."""

    def __init__(self, lab: Lab, description: HostDescription) -> None:
        group = ControlGroup(lab.keeper.groups / description.name)
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid")
        super().__init__(description.name, group, spaces, ENVIRONMENT)
        self.lab = lab
        self.description = description
        self.address = description.address
        self.data_center = description.data_center
        self.user = ADMINISTRATOR
        self.port = PORT
        self.folder_of_files = lab.folder / "hosts" / self.name
        self.disk = Disk(self.folder_of_files, lab.master)
        #: The network device of the host, at the switch of its data center.
        self.device = "host{}.{}".format(*description.numbers)

    @property
    def log(self) -> Path:
        """What the host said while it started."""
        return self.folder_of_files / "console.log"

    @property
    def script(self) -> Path:
        """What starts the host."""
        return self.folder_of_files / "boot.sh"

    def make(self, host_key: KeyPair, disk_size: int = DEFAULT_SIZE) -> None:
        """Make the host's disk, with a bare system on it."""
        self.folder_of_files.mkdir(parents=True)
        self.group.make()
        self.script.write_text(BOOT)
        self.disk.make(disk_size)
        (self.folder_of_files / "root").mkdir()
        self.disk.mount()
        (self.disk.path / "work").mkdir()
        layer = UpperLayer(self.disk.path / "changes")
        hidden = [Path(home)] if (home := os.environ.get("WENDELIN_HOME")) else []
        make_bare_system(layer, self.name, ADMINISTRATOR, hidden)
        write_server(layer, host_key, self.lab.public_key.read_text())
        self.disk.sync()

    def erase(self) -> None:
        """Remove all that is left of a host that is off."""
        shutil.rmtree(self.folder_of_files)
        until(self.group.try_to_remove, f"the control group of {self.name} is removed")

    def write_names(self, text: str) -> None:
        """Write the host's /etc/hosts, if its disk is there."""
        path = self.disk.path / "changes" / "etc" / "hosts"
        if path.parent.is_dir():
            path.write_text(text)

    def start_up(self) -> None:
        """Start the host on its mounted disk, and wait until its SSH server answers."""
        self.lab.tell_names(self)
        command = [
            *("unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"),
            *("--", "/bin/sh", str(self.script), str(self.disk.mount_point)),
            *(str(self.folder_of_files / "root"), self.name),
            *self.lab.interface(self.address),
        ]
        stdin = self.lab.master.start(command, self.log, self.group)
        with stdin:
            until(lambda: self.runs or self.has_failed(), f"{self.name} runs")
            self.plug_in()
            stdin.write(b"go\n")
        until(lambda: self.answers() or self.has_failed(), f"the SSH server of {self.name} answers")

    def has_failed(self) -> bool:
        """Raise LabError when the host ended while it started; else return False."""
        if self.group.processes():
            return False
        words = self.log.read_text().strip() if self.log.exists() else ""
        raise LabError(f"{self.name} ended while it started: {words or 'it said nothing'}")

    def answers(self) -> bool:
        """Return whether the host's own SSH server takes connections."""
        try:
            self.connect(("127.0.0.1", PORT), 1).close()
        except (OSError, LabError):
            return False
        return True

    def plug_in(self) -> None:
        """Give the host its network device."""
        center, number = self.description.numbers
        hardware = f"02:57:00:00:{center:02x}:{number:02x}"
        # ip runs in the lab, where the host's first process has another number than here.
        process = self.group.numbers(self.init)[-2]
        self.lab.configure_network(
            f"link add {self.device} type veth peer name eth0 address {hardware} netns {process}",
            f"link set {self.device} master dc{center} up",
        )

    def unplug(self) -> None:
        """Take the network device away; it may be gone already."""
        delete = self.lab.master.run("ip", "link", "delete", self.device, check=False)
        # The device of a host that has just ended goes while ip looks for it, or a moment later.
        gone = "Cannot find device" in delete.stderr or "No such device" in delete.stderr
        if delete.returncode and not gone:
            raise CommandError(f"{self.name} keeps its network: {delete.stderr.strip()}")

    def power_off(self) -> None:
        """Take the host's power: its processes and what was not synced are gone. Safe to repeat."""
        # The network first: nobody must hear from a dying host. Then the disk, before anything
        # ends: the kernel syncs what it unmounts.
        self.unplug()
        if self.runs:
            self.group.freeze()
            self.disk.lose_power()
            self.group.kill_init()
            self.group.thaw()
        if self.disk.is_mounted:
            self.disk.unmount()

    def power_on(self) -> None:
        """Start the host with what is on its disk, and wait for its SSH server. Safe to repeat."""
        if self.runs:
            return
        # A host that ended by itself has left its disk mounted.
        self.power_off()
        self.disk.mount()
        self.start_up()

    def cut(self) -> None:
        """Take the host off the network."""
        self.lab.configure_network(f"link set {self.device} down")

    def heal(self) -> None:
        """Put the host on the network again."""
        self.lab.configure_network(f"link set {self.device} up")

    def freeze(self) -> None:
        """Let nothing on the host run, as if it hung."""
        self.group.freeze()

    def thaw(self) -> None:
        """Let the host go on."""
        self.group.thaw()

    def fill_disk(self) -> None:
        """Leave no space on the host's disk."""
        self.disk.fill()

    def free_disk(self) -> None:
        """Give back the space that was taken."""
        self.disk.free()

    def ssh(self, *, origin: Place | None = None, timeout: float = 60.0) -> paramiko.SSHClient:
        """Log in as the administrator, from the master's place or another host.

        :param origin: where the connection begins.
        """
        place = origin or self.lab.master
        connection = place.connect((self.address, PORT), timeout)
        return log_in(connection, self.name, self.lab.key, self.lab.known_hosts, timeout=timeout)

    @property
    def state(self) -> str:
        """What the host is at, one word."""
        if not self.runs:
            return "off"
        return "frozen" if self.group.is_frozen else "on"
