# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make of a computer a host again, as if it had never joined."""

from __future__ import annotations

import grp
import ipaddress
import pwd
import re
import shutil
from pathlib import Path
from typing import Any

from slapos_wendelin.onhost.agent import Agent
from slapos_wendelin.onhost.processes import end_users
from slapos_wendelin.onhost.record import CONFIGURATION, Record
from slapos_wendelin.onhost.session import Session

#: Where the supervisord of the partitions keeps what slapgrid's watchdog says.
_LOGS = "watchdog-std*---supervisor-*.log"
_USER = re.compile(r"slapsoft|slapuser[0-9]+")


def leave(session: Session, order: dict[str, Any]) -> dict[str, Any]:
    """Take away all that joining has brought. Safe to repeat.

    :param order: ``prefix`` and ``data``, which count where the host has no record of its own.
    """
    record = Record()
    if not record.values:
        if record.path.parent.is_dir() and not any(record.path.parent.iterdir()):
            record.path.parent.rmdir()
        return {"found": False}
    prefix = Path(record.values.get("prefix", order["prefix"]))
    data = Path(record.values.get("data", order["data"]))
    folder = Path(CONFIGURATION)
    with session.step("stop"):
        Agent(session, prefix, data, folder / "slapos.cfg").stop(data / "inst")
    with session.step("uninstall"):
        _drop_addresses(session, record.values.get("addresses", ""))
        _remove_users(session)
        for each in (data, prefix, *Path("/tmp").glob(_LOGS)):  # noqa: S108 (supervisord's choice)
            _remove(session, each)
        _remove_traces(session, folder, record)
    return {"found": True, "computer": record.values.get("computer")}


def _remove_traces(session: Session, folder: Path, record: Record) -> None:
    """Remove the configuration and what came with the joining besides; the record goes last."""
    made = [Path(each) for each in record.values.get("made", ())]
    for each in made:
        if each.is_file():
            each.unlink()
    for each in folder.iterdir():
        if each != record.path:
            _remove(session, each)
    _remove(session, folder)
    for each in sorted(made, reverse=True):
        if each.is_dir() and not any(each.iterdir()):
            each.rmdir()


def _drop_addresses(session: Session, block: str) -> None:
    """Take the addresses of the partitions from the interface on which they are."""
    if not block:
        return
    network = ipaddress.ip_network(block)
    shown = session.run(["ip", "-o", "address", "show"], doing="looking at the addresses")
    for line in shown.splitlines():
        words = line.split()
        interface, address = words[1], words[3]
        if words[2] not in ("inet", "inet6"):
            continue
        # Those that were given to partitions are for one host each.
        given = ipaddress.ip_network(address, strict=False)
        if given.num_addresses == 1 and given.network_address in network:
            command = ["ip", "address", "delete", address, "dev", interface]
            session.run(command, doing=f"taking {address} away")


def _remove_users(session: Session) -> None:
    """Remove the users that slapformat has made, and their groups."""
    users = [each for each in pwd.getpwall() if _USER.fullmatch(each.pw_name)]
    end_users({each.pw_uid for each in users})
    for user in users:
        session.run(["userdel", user.pw_name], doing=f"removing the user {user.pw_name}")
    for group in [each.gr_name for each in grp.getgrall() if _USER.fullmatch(each.gr_name)]:
        session.run(["groupdel", group], doing=f"removing the group {group}")


def _remove(session: Session, path: Path) -> None:
    """Remove a file or a folder with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        for place in _mounted_below(path):
            session.run(["umount", place], doing=f"unmounting {place}")
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _mounted_below(path: Path) -> list[str]:
    """Return what is mounted in a folder, the deepest first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    places = [line.split()[1] for line in lines]
    return sorted((each for each in places if each.startswith(f"{path}/")), reverse=True)
