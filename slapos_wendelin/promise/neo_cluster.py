# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promise: the NEO cluster is running as it was asked for."""

from __future__ import annotations

from typing import Any

from slapos_wendelin.promise.base import BrokenPromiseError, Promise
from slapos_wendelin.promise.neo import cluster_state


class RunPromise(Promise):
    """Green while the cluster is RUNNING with all its storages, replicas and readable cells."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        # A cluster runs only once nodes on other computers do: no reason to redo this partition.
        self.setTestLess()

    def check(self) -> str:
        """Compare the cluster with what was asked for."""
        state = cluster_state(self)
        if state["cluster"] != "RUNNING":
            raise BrokenPromiseError(f"the cluster is {state['cluster']}, not RUNNING")
        storages = [node for node in state["nodes"] if node["type"] == "STORAGE"]
        running = [node for node in storages if node["state"] == "RUNNING"]
        wanted = int(self.getConfig("storage-count"))
        if len(running) < wanted:
            raise BrokenPromiseError(f"{len(running)} of {wanted} storages are running")
        if state["replicas"] != int(self.getConfig("replicas")):
            raise BrokenPromiseError(
                f"the cluster keeps {state['replicas']} replicas, "
                f"asked for are {self.getConfig('replicas')}"
            )
        return f"RUNNING with {len(running)} storages, {_copies(state)}"


def _copies(state: dict[str, Any]) -> str:
    """Count the readable cells; raise BrokenPromiseError where a NEO partition lacks copies."""
    rows = state["partition-table"]
    wanted = state["replicas"] + 1
    readable = [sum(cell[1] in ("UP_TO_DATE", "FEEDING") for cell in row) for row in rows]
    behind = sum(count < wanted for count in readable)
    if behind:
        raise BrokenPromiseError(
            f"{behind} of {len(rows)} NEO partitions have fewer than {wanted} readable copies "
            "(replication is under way, or a storage is missing)"
        )
    return f"{wanted} copies of each of {len(rows)} NEO partitions"
