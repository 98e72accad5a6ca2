# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promise: a storage node serves its part of the cluster."""

from __future__ import annotations

from typing import Any

from slapos_wendelin.promise.base import BrokenPromiseError, Promise
from slapos_wendelin.promise.neo import cell_states, cluster_state


class RunPromise(Promise):
    """Green while the storage at ``address`` is RUNNING and all its cells are up to date."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        # Cells come once the cluster runs: no reason to redo this partition until then.
        self.setTestLess()

    def check(self) -> str:
        """Find this storage among the nodes and in the partition table."""
        address = self.getConfig("address")
        state = cluster_state(self)
        for node in state["nodes"]:
            if node["type"] == "STORAGE" and node["address"] == address:
                break
        else:
            raise BrokenPromiseError(f"the cluster does not know the storage at {address}")
        if node["state"] != "RUNNING":
            raise BrokenPromiseError(f"the storage {node['id']} is {node['state']}, not RUNNING")
        cells = cell_states(state, node["id"])
        if not cells:
            raise BrokenPromiseError(f"the storage {node['id']} has no cell in the partition table")
        behind = sum(cell != "UP_TO_DATE" for cell in cells)
        if behind:
            raise BrokenPromiseError(
                f"{behind} of {len(cells)} cells of the storage {node['id']} are not up to date"
            )
        return f"{node['id']} has {len(cells)} cells up to date"
