# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the master's status as tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from slapos_wendelin.master.client import Document


def print_status(document: Document, console: Console) -> int:
    """Print computers and instance trees; return 0 when all is well, 1 otherwise."""
    computers = Table("data center", "computer", "partitions", "software", "last contact")
    for computer in document["computers"]:
        states = [item["reported_state"] or "waiting" for item in computer["software"]]
        computers.add_row(
            computer["datacenter"],
            computer["reference"],
            f"{computer['partitions_used']} of {computer['partitions']}",
            ", ".join(states),
            (computer["contacted_at"] or "never")[11:19],
        )
    console.print(computers)
    faults = 0
    for root in document["instances"]:
        branch = Tree(_label(root))
        faults += _add_children(branch, root)
        console.print(branch)
    return 1 if faults else 0


def _add_children(branch: Tree, instance: Document) -> int:
    """Add the instances below one; return how many of all are not well."""
    faults = int(not _is_well(instance))
    for child in instance["children"]:
        faults += _add_children(branch.add(_label(child)), child)
    return faults


def _is_well(instance: Document) -> bool:
    """Return whether an instance is as requested and without error."""
    return bool(instance["settled"])


def _label(instance: Document) -> str:
    """Describe an instance in one line."""
    place = f"{instance['computer']}/{instance['partition']}" if instance["computer"] else "nowhere"
    state = instance["reported_state"] or "not started"
    if not instance["settled"] and not instance["error"]:
        state += " (changes)"
    text = f"{instance['reference']}  {place}  {state}"
    if instance["error"]:
        text += f"  [red]{str(instance['error']['text']).strip().splitlines()[-1]}[/red]"
    return text
