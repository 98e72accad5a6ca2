# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lead a running NEO cluster to the storages and replicas that are asked for.

Runs beside the admin node with the interpreter of the environment that NEO is installed in. It
looks every few seconds and does one step at a time, so that it may be killed and started at will:
new storages are added, the number of replicas is set, and the partition table is tweaked until
nothing is left to change. Data moves in the background and the cluster goes on meanwhile.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from typing import Any

from neo.lib.protocol import CellStates, ClusterStates, NodeStates, NodeTypes, uuid_str
from neo.lib.util import parseNodeAddress
from neo.neoctl.neoctl import NeoCTL, NotReadyException

#: Seconds between two looks at the cluster.
INTERVAL = 2.0

log = logging.getLogger("neo-keeper")


class Keeper:
    """Leads a cluster to *storage_count* storages and *replicas* replicas."""

    def __init__(self, storage_count: int, replicas: int) -> None:
        self.storage_count = storage_count
        self.replicas = replicas
        #: Storages and partition table that need no tweak. Asking makes the master log a warning.
        self._settled: Any = None

    def step(self, control: NeoCTL) -> str | None:
        """Do the next step towards what is asked for; return what was done, or None.

        Nothing is done while the cluster is not RUNNING, a storage is away or cells are being
        copied: a tweak would then move data that the missing node still has.
        """
        if control.getClusterState() != ClusterStates.RUNNING:
            return None
        storages = control.getNodeList(NodeTypes.STORAGE)
        pending = [node[2] for node in storages if node[3] == NodeStates.PENDING]
        if pending:
            control.enableStorageList(pending)
            return f"added {', '.join(map(uuid_str, pending))}"
        running = sorted(node[2] for node in storages if node[3] == NodeStates.RUNNING)
        _, kept, rows = control.getPartitionRowList()
        if kept != self.replicas and len(running) > self.replicas:
            control.setNumReplicas(self.replicas)
            return f"replicas: {kept} -> {self.replicas}"
        is_missing = len(running) < max(self.storage_count, len(storages))
        if is_missing or _is_copying(rows) or self._settled == (running, kept, rows):
            return None
        changed, _ = control.tweakPartitionTable(dry_run=True)
        if not changed:
            self._settled = running, kept, rows
            return None
        control.tweakPartitionTable()
        return "tweaked the partition table"


def _is_copying(rows: list[Any]) -> bool:
    """Return whether some cell is not yet, or no longer, fully up to date."""
    return any(cell[1] != CellStates.UP_TO_DATE for row in rows for cell in row)


def main() -> None:
    """Look and step for ever, until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--admin", required=True, help="address of the admin node")
    parser.add_argument("--storage-count", required=True, type=int)
    parser.add_argument("--replicas", required=True, type=int)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    address = parseNodeAddress(options.admin)
    keeper = Keeper(options.storage_count, options.replicas)
    while True:
        control = NeoCTL(address)
        try:
            while True:
                done = keeper.step(control)
                if done:
                    log.info("%s", done)
                time.sleep(INTERVAL)
        except NotReadyException:
            pass  # no admin or no primary master for now
        except RuntimeError as error:
            log.info("the master refused: %s", error)
        finally:
            control.close()
        time.sleep(INTERVAL)


if __name__ == "__main__":
    main()
