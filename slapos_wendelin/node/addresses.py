# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a host the addresses of its partitions: ``python -m ...node.addresses slapos.cfg``.

They are gone after each start of the host. Where partitions have the host's own address, nothing is
done.
"""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

from slapos_wendelin.errors import CommandError, WendelinError


def partition_addresses(settings: Path) -> tuple[str, list[str]]:
    """Return the computer's own address and those of its partitions."""
    configuration = configparser.ConfigParser(interpolation=None)
    configuration.read(settings)
    definition = configparser.ConfigParser(interpolation=None)
    definition.read(configuration["slapformat"]["input_definition_file"])
    own = definition["computer"]["address"].partition("/")[0]
    partitions = [each for each in definition.sections() if each.startswith("partition_")]
    return own, [definition[each]["address"].partition("/")[0] for each in partitions]


def give_addresses(own: str, wanted: list[str]) -> list[str]:
    """Add what is missing to the interface that has the computer's own address; return that.

    :raises CommandError: when it cannot be added.
    """
    shown = json.loads(_ip("-json", "address", "show"))
    there = {
        address["local"]: interface["ifname"]
        for interface in shown
        for address in interface["addr_info"]
    }
    missing = [each for each in dict.fromkeys(wanted) if each not in there]
    if missing and own not in there:
        raise CommandError(f"the host has no address {own} any more", "join it again")
    for address in missing:
        _ip("address", "add", str(ip_network(address)), "dev", there[own])
    return missing


def _ip(*arguments: str) -> str:
    """Run the program ``ip`` and return what it says."""
    done = subprocess.run(
        [shutil.which("ip") or "/sbin/ip", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CommandError(f"ip {' '.join(arguments)} failed: {done.stderr.strip()}", "see ip help")
    return done.stdout


def main() -> None:
    """Add what is missing."""
    try:
        give_addresses(*partition_addresses(Path(sys.argv[1])))
    except WendelinError as error:
        sys.exit(f"wendelin: {error}")


if __name__ == "__main__":
    main()
