# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take all away from a host that joining has brought."""

from __future__ import annotations

import getpass
import socket
import time
from typing import Any

from slapos_wendelin.master.client import Document
from slapos_wendelin.remote.errors import HostError
from slapos_wendelin.remote.host_program import Answer, HostProgram
from slapos_wendelin.remote.joining import ADDRESS_LABEL, DATA, JUMP_LABEL, PREFIX, Listener
from slapos_wendelin.remote.probe import Facts, look
from slapos_wendelin.remote.ssh import Access, connected
from slapos_wendelin.remote.target import Target, parse_address, parse_jumps

#: The steps on the host and what each is for.
STEPS = {
    "connect": "connect and check the host's key",
    "stop": "stop the service and what runs in the partitions",
    "uninstall": "remove toolkit, software, partitions and users",
}


def target_of(computer: Document) -> Target:
    """Return where a computer is reached, by the labels that joining has given it.

    :raises HostError: when it has none.
    """
    labels = computer["labels"]
    if ADDRESS_LABEL not in labels:
        raise HostError(
            f"the master does not know where {computer['reference']} is reached by SSH",
            "name its address: slapos computer leave ssh://USER@HOST",
        )
    return Target(
        address=parse_address(labels[ADDRESS_LABEL], f"the label {ADDRESS_LABEL}"),
        name=computer["reference"],
        jumps=parse_jumps(labels.get(JUMP_LABEL, ""), f"the label {JUMP_LABEL}"),
    )


def look_at(target: Target, access: Access) -> Facts:
    """Ask a host what it has, and whether we may change it.

    :raises HostError: when we may not, or it is another computer.
    """
    with connected(target.address, target.jumps, access) as connection:
        facts = look(connection, prefix=PREFIX, data=DATA, master_url="", ask_index=False)
    if facts.become == "none" or not facts.python:
        raise HostError(
            f"{target.address} cannot be changed: "
            + ("you are not root there" if facts.become == "none" else "it has no Python"),
            "let this user use sudo without a password, and install python3 there",
        )
    known = facts.record.get("computer", target.name)
    if target.name and known != target.name:
        raise HostError(
            f"{target.address} is the computer {known}, not {target.name}",
            f"slapos computer leave {known}, or name the address of {target.name}",
        )
    return facts


def uninstall(target: Target, facts: Facts, access: Access, listener: Listener) -> bool:
    """Take all away from a host; say whether there was something.

    :raises HostError: when it cannot be done; it may be repeated.
    """
    began = time.monotonic()

    def hear(kind: str, event: dict[str, Any]) -> None:
        nonlocal began
        if kind == "begin":
            began = time.monotonic()
            listener.begin(event["step"])
        elif kind == "done":
            listener.end(event["step"], time.monotonic() - began, kept=False)

    listener.begin("connect")
    with connected(target.address, target.jumps, access) as connection:
        listener.end("connect", time.monotonic() - began, kept=False)
        program = HostProgram(
            connection, become=facts.become, python=facts.python, tell=hear, answer=_nothing
        )
        order = {
            "action": "leave",
            "who": f"{getpass.getuser()} on {socket.gethostname()}",
            "prefix": PREFIX,
            "data": DATA,
        }
        return bool(program.run(order)["found"])


def _nothing(what: str) -> Answer:
    """Refuse what a host asks for: it needs nothing to leave."""
    raise HostError(f"the host asks for {what!r}", "use the same version everywhere")
