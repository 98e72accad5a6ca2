# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lead a running NEO cluster to the storages and replicas that are asked for.

Runs beside the admin node with the interpreter of the environment that NEO is installed in. It
looks every few seconds and does one step at a time, so that it may be killed and started at will:
new storages are added, the number of replicas is set, the partition table is tweaked until nothing
is left to change, and storages that others have replaced are dropped. Data moves in the background
and the cluster goes on meanwhile.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from pathlib import Path
from typing import Any

from neo.lib.protocol import CellStates, ClusterStates, NodeStates, NodeTypes, uuid_str
from neo.lib.util import parseNodeAddress
from neo.neoctl.neoctl import NeoCTL, NotReadyException

from slapos_wendelin.neo import certificates

#: Seconds between two looks at the cluster.
INTERVAL = 2.0

#: How many looks in a row have to find that a storage was replaced, until it counts as such.
REPLACED_LOOKS = 5

log = logging.getLogger("neo-keeper")


class Keeper:
    """Leads a cluster to *storage_count* storages and *replicas* replicas."""

    def __init__(self, storage_count: int, replicas: int) -> None:
        self.storage_count = storage_count
        self.replicas = replicas
        #: Storages and partition table that need no tweak. Asking makes the master log a warning.
        self._settled: Any = None
        #: Storages that have been replaced, and how many looks in a row have found them so.
        self._replaced: list[int] = []
        self._looks = 0

    def step(self, control: NeoCTL) -> str | None:
        """Do the next step towards what is asked for; return what was done, or None.

        Nothing is done while the cluster is not RUNNING, a storage is away or cells are being
        copied: a tweak would then move data that the missing node still has. A storage that is
        down while as many run as are asked for was replaced, as one that was moved to another
        computer is: it is dropped once the others have all copies.
        """
        if control.getClusterState() != ClusterStates.RUNNING:
            return None
        storages = {node[2]: node[3] for node in control.getNodeList(NodeTypes.STORAGE)}
        pending = _in_state(storages, NodeStates.PENDING)
        if pending:
            control.enableStorageList(pending)
            return f"added {_names(pending)}"
        running = _in_state(storages, NodeStates.RUNNING)
        _, kept, rows = control.getPartitionRowList()
        if kept != self.replicas and len(running) > self.replicas:
            control.setNumReplicas(self.replicas)
            return f"replicas: {kept} -> {self.replicas}"
        if len(running) < self.storage_count or not self._is_known(storages, running):
            return None
        if _is_copying(rows, self._replaced) or self._settled == (running, kept, rows):
            return None
        return self._tweak(control) or self._drop(control) or self._settle(running, kept, rows)

    def _is_known(self, storages: dict[int, Any], running: list[int]) -> bool:
        """Note the storages that were replaced; return whether it is sure that they were."""
        replaced = _in_state(storages, NodeStates.DOWN)
        self._looks = self._looks + 1 if replaced == self._replaced else 0
        self._replaced = replaced
        are_all = len(running) + len(replaced) == len(storages)
        return are_all and (not replaced or self._looks >= REPLACED_LOOKS)

    def _tweak(self, control: NeoCTL) -> str | None:
        """Spread the cells over the storages that run, if they are not."""
        changed, _ = control.tweakPartitionTable(self._replaced, dry_run=True)
        if not changed:
            return None
        control.tweakPartitionTable(self._replaced)
        return "tweaked the partition table"

    def _drop(self, control: NeoCTL) -> str | None:
        """Forget the storages that were replaced, of which nothing is needed any more."""
        if not self._replaced:
            return None
        for storage in self._replaced:
            control.dropNode(storage)
        return f"dropped {_names(self._replaced)}, which others have replaced"

    def _settle(self, *state: Any) -> None:
        """Remember that nothing is left to do in this state."""
        self._settled = state


def _in_state(storages: dict[int, Any], state: Any) -> list[int]:
    """Return the storages in a state, in order."""
    return sorted(storage for storage, found in storages.items() if found == state)


def _names(storages: list[int]) -> str:
    """Return the names of storages."""
    return ", ".join(map(uuid_str, storages))


def _is_copying(rows: list[Any], replaced: list[int]) -> bool:
    """Return whether some cell that counts is not yet, or no longer, fully up to date."""
    return any(
        cell[1] != CellStates.UP_TO_DATE for row in rows for cell in row if cell[0] not in replaced
    )


def main() -> None:
    """Look and step for ever, until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--admin", required=True, help="address of the admin node")
    parser.add_argument(
        "--certificates", type=Path, help="folder of the certificate (default: no TLS)"
    )
    parser.add_argument("--storage-count", required=True, type=int)
    parser.add_argument("--replicas", required=True, type=int)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    address = parseNodeAddress(options.admin)
    files = certificates.files_in(options.certificates) if options.certificates else None
    keeper = Keeper(options.storage_count, options.replicas)
    while True:
        control = NeoCTL(address, ssl=files)
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
