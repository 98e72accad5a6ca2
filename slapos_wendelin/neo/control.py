# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A NEO cluster as its admin node shows it, and what it is told to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neo.lib.protocol import CellStates, ClusterStates, NodeStates, NodeTypes, uuid_str
from neo.neoctl.neoctl import NeoCTL

from slapos_wendelin.neo.errors import OperationError

Rows = list[list[tuple[int, Any]]]

#: The letter of each state of a cell, as neoctl prints them, and that of no cell.
LETTERS = {
    CellStates.UP_TO_DATE: "U",
    CellStates.OUT_OF_DATE: "O",
    CellStates.FEEDING: "F",
    CellStates.CORRUPTED: "C",
}
NO_CELL = "."


@dataclass(frozen=True)
class Survey:
    """The storages and the partition table at one moment."""

    state: Any
    #: The state of each storage, and the time from which it has been connected.
    storages: dict[int, Any]
    since: dict[int, Any]
    replicas: int
    rows: Rows

    def cells(self, state: Any) -> list[tuple[int, int]]:
        """Return the cells in a state: NEO partition and storage."""
        return [
            (offset, storage)
            for offset, row in enumerate(self.rows)
            for storage, found in row
            if found == state
        ]

    def not_running(self) -> list[int]:
        """Return the storages that do not run, in order; those that are to be added left out."""
        here = (NodeStates.RUNNING, NodeStates.PENDING)
        return sorted(each for each, state in self.storages.items() if state not in here)


def survey(control: NeoCTL) -> Survey:
    """Return how a cluster is.

    :raises NotReadyException: when the admin has no primary master.
    """
    state = control.getClusterState()
    nodes = control.getNodeList(NodeTypes.STORAGE)
    _, replicas, rows = control.getPartitionRowList()
    return Survey(
        state,
        {node[2]: node[3] for node in nodes},
        {node[2]: node[4] for node in nodes},
        replicas,
        rows,
    )


def tweak(control: NeoCTL, without: list[int], *, dry_run: bool = False) -> tuple[bool, Rows]:
    """Spread the cells over the storages; return whether that changes something, and the rows.

    :param without: storages that do not count; those that are down have to be among them.
    :raises OperationError: when the master refuses.
    """
    try:
        changed, rows = control.tweakPartitionTable(without, dry_run)
    except SystemExit as refusal:
        raise refused(refusal) from refusal
    return changed, rows


def refused(refusal: SystemExit) -> OperationError:
    """Return the error for what NEO's control node makes of the master's refusal.

    :raises SystemExit: when it is no refusal: somebody stops this program.
    """
    if not isinstance(refusal.code, str):
        raise refusal
    return OperationError(f"NEO's master refuses: {refusal.code}")


def cells_by_storage(rows: Rows) -> dict[str, str]:
    """Return the cells of each storage as one text, a letter for each NEO partition."""
    found: dict[int, list[str]] = {}
    for offset, row in enumerate(rows):
        for storage, state in row:
            letters = found.setdefault(storage, [NO_CELL] * len(rows))
            letters[offset] = LETTERS[state]
    return {uuid_str(storage): "".join(found[storage]) for storage in sorted(found)}


def names(storages: list[int]) -> str:
    """Return the names of storages."""
    return ", ".join(map(uuid_str, storages))


def is_running(found: Survey) -> bool:
    """Say whether the cluster is at work."""
    return found.state == ClusterStates.RUNNING
