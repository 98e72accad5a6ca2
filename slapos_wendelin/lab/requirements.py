# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine needs for a lab."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from slapos_wendelin.errors import MissingRequirementError
from slapos_wendelin.lab.hosts import ENVIRONMENT

#: Programs, and the packages of Debian and Ubuntu that have them.
PACKAGES = {
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "mkfs.ext4": "e2fsprogs",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "sudo": "sudo",
    "ping": "iputils-ping",
}
DEVICES = {"/dev/net/tun": "tun", "/dev/loop-control": "loop"}
#: Folders that hosts have from this machine, which must be on the file system of the root folder.
SHARED_FOLDERS = ("/etc", "/usr", "/var", "/var/lib")


def missing() -> MissingRequirementError | None:
    """Return the error that says all that is missing for a lab, None when nothing is."""
    if os.geteuid() != 0:
        return MissingRequirementError(
            "a lab makes network devices, mounts and control groups, which needs root",
            "run it as root, on a machine or in a container that may do that",
        )
    packages = sorted(
        {
            package
            for program, package in PACKAGES.items()
            if shutil.which(program, path=ENVIRONMENT["PATH"]) is None
        }
    )
    if packages:
        return MissingRequirementError(
            f"a lab needs programs of {', '.join(packages)}",
            "apt-get update && apt-get install --yes --no-install-recommends " + " ".join(packages),
        )
    devices = [name for name in DEVICES if not Path(name).exists()]
    if devices:
        modules = " ".join(DEVICES[name] for name in devices)
        return MissingRequirementError(
            f"a lab needs {' and '.join(devices)}, which this machine lacks",
            f"modprobe --all {modules}; give a container these devices",
        )
    elsewhere = [name for name in SHARED_FOLDERS if os.path.ismount(name)]
    if elsewhere:
        return MissingRequirementError(
            f"hosts have this machine's root, and {', '.join(elsewhere)} is another file system",
            "use a machine that has its system on one file system",
        )
    return None


def require() -> None:
    """Raise MissingRequirementError when this machine lacks something."""
    if error := missing():
        raise error
