# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the root of a host: this machine's installed packages, and nothing else of this machine.

A host's root is an overlay: below, read only, the root of this machine; above, the host's disk.
What is hidden or replaced here is an entry of the upper layer, made before the host starts for the
first time.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

#: What a host sees of this machine's root folder, of /var and of /var/lib.
VISIBLE = frozenset(
    ("bin", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr", "var", "lost+found")
)
VISIBLE_VAR = frozenset(("lib", "lock", "run"))
VISIBLE_LIBRARY = frozenset(("apt", "dpkg", "pam", "python", "shells.state", "ucf"))
#: Folders that every system has, with their modes.
EMPTY = {
    **dict.fromkeys(("dev", "proc", "run", "sys"), 0o755),
    **dict.fromkeys(("home", "media", "mnt", "opt", "srv"), 0o755),
    "root": 0o700,
    "tmp": 0o1777,
    "var/cache": 0o755,
    "var/cache/apt": 0o755,
    "var/log": 0o755,
    "var/spool": 0o755,
    "var/tmp": 0o1777,
    "etc/ssh": 0o755,
    "etc/sudoers.d": 0o750,
    **{f"etc/rc{level}.d": 0o755 for level in "0123456S"},
}
#: Configuration of this machine's own services, its secrets and its ways out.
HIDDEN = (
    *("etc/docker", "etc/mysql", "etc/postgresql", "etc/postgresql-common", "etc/ssl/private"),
    *("etc/pip.conf", "etc/passwd-", "etc/shadow-", "etc/group-", "etc/gshadow-", "etc/rc.local"),
    *("etc/cron.d", "etc/cron.daily", "etc/cron.hourly", "etc/cron.weekly", "etc/cron.monthly"),
)
#: Accounts with larger numbers are this machine's own, but for those that packages rely on.
LAST_SYSTEM_NUMBER, NOBODY = 99, 65534
KEPT_ACCOUNTS = frozenset(("_apt", "sshd", "nobody", "nogroup", "messagebus"))


class UpperLayer:
    """The layer of a host's root that is on its disk."""

    def __init__(self, folder: Path, lower: Path = Path("/")) -> None:
        self.folder = folder
        self.lower = lower

    def hide(self, name: str) -> None:
        """Let the host not see a file or folder of this machine."""
        path = self._reach(name)
        if path.exists() or not os.path.lexists(self.lower / name):
            return
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))

    def empty(self, name: str, mode: int) -> Path:
        """Let the host see an empty folder, whatever this machine has there."""
        path = self._reach(name)
        path.mkdir()
        path.chmod(mode)
        os.setxattr(path, "trusted.overlay.opaque", b"y")
        return path

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Let the host see a file with that text."""
        path = self._reach(name)
        path.touch(mode=0o600)
        path.chmod(mode)
        path.write_text(text)

    def _reach(self, name: str) -> Path:
        """Make the folders above an entry, as the machine has them; return the entry's path."""
        path = self.folder
        for part in Path(name).parts[:-1]:
            path /= part
            if not path.exists():
                path.mkdir()
                model = self.lower / path.relative_to(self.folder)
                if model.exists():
                    shutil.copystat(model, path)
                    status = model.stat()
                    os.chown(path, status.st_uid, status.st_gid)
        return path / Path(name).name


def make_bare_system(
    layer: UpperLayer, host: str, administrator: str, also_hidden: Iterable[Path] = ()
) -> None:
    """Make the root of a host that has this machine's packages and nothing else was done on.

    :param administrator: a user who may do everything with sudo.
    :param also_hidden: folders of this machine that the host must not see.
    """
    layer.folder.mkdir(mode=0o755)
    for name, mode in EMPTY.items():
        layer.empty(name, mode)
    for folder, visible in (
        ("", VISIBLE),
        ("var", VISIBLE_VAR),
        ("var/lib", VISIBLE_LIBRARY),
    ):
        for entry in (layer.lower / folder).iterdir():
            if entry.name not in visible:
                layer.hide(f"{folder}/{entry.name}".lstrip("/"))
    for name in (*HIDDEN, *(str(path).lstrip("/") for path in also_hidden)):
        if name.split("/")[0] in VISIBLE:
            layer.hide(name)
    _write_accounts(layer, administrator)
    layer.write("etc/hostname", f"{host}\n")
    layer.write("etc/machine-id", f"{secrets.token_hex(16)}\n", 0o444)
    # Look-ups hang where a name server is named that cannot be reached.
    layer.write("etc/resolv.conf", "")
    layer.write("etc/sudoers.d/administrator", f"{administrator} ALL=(ALL) NOPASSWD: ALL\n", 0o440)


def _write_accounts(layer: UpperLayer, administrator: str) -> None:
    """Write the users and groups of the system, without passwords, and the administrator."""
    lower = layer.lower / "etc"
    users = _system_accounts(lower / "passwd")
    groups = _system_accounts(lower / "group")
    names = [line.split(":")[0] for line in users]
    users.append(f"{administrator}:x:1000:1000::/home/{administrator}:/bin/bash")
    groups.append(f"{administrator}:x:1000:")
    layer.write("etc/passwd", "\n".join(users) + "\n")
    layer.write("etc/group", "\n".join(groups) + "\n")
    shadow = "".join(f"{name}:*:19000:0:99999:7:::\n" for name in (*names, administrator))
    layer.write("etc/shadow", shadow, 0o640)
    layer.write("etc/gshadow", "".join(f"{line.split(':')[0]}:*::\n" for line in groups), 0o640)
    home = layer.folder / "home" / administrator
    home.mkdir(mode=0o750)
    os.chown(home, 1000, 1000)


def _system_accounts(path: Path) -> list[str]:
    """Return the lines of those accounts that packages rely on."""
    kept = []
    for line in path.read_text().splitlines():
        name, _, number, *rest = line.split(":")
        if int(number) <= LAST_SYSTEM_NUMBER or name in KEPT_ACCOUNTS:
            # A group's members are this machine's own.
            kept.append(line if len(rest) > 1 else f"{name}:x:{number}:")
    return kept
