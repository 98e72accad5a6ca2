# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lead a running NEO cluster to the storages and replicas that are asked for.

Runs beside the admin node with the interpreter of the environment that NEO is installed in. It
looks every few seconds and does one step at a time, so that it may be killed and started at will:
new storages are added, the number of replicas is set, the partition table is tweaked until nothing
is left to change, and storages that others have replaced are dropped. Data moves in the background
and the cluster goes on meanwhile.

Between its steps it does what operators ask for at the master (`slapos cluster neo`), in the same
thread, so that nobody else changes the partition table meanwhile.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from neo.lib.protocol import CellStates, ClusterStates, NodeStates, NodeTypes
from neo.lib.util import parseNodeAddress
from neo.neoctl.neoctl import NeoCTL, NotReadyException

from slapos_wendelin.neo import certificates
from slapos_wendelin.neo.channel import Channel
from slapos_wendelin.neo.control import names, refused, tweak
from slapos_wendelin.neo.desk import Desk
from slapos_wendelin.neo.errors import OperationError
from slapos_wendelin.neo.master_line import Place
from slapos_wendelin.neo.tasks import Access

#: Seconds between two looks at the cluster.
INTERVAL = 2.0

#: Seconds between two looks at how goes what operators have asked for.
BUSY_INTERVAL = 0.5

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
            return f"added {names(pending)}"
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
        changed, _ = tweak(control, self._replaced, dry_run=True)
        if not changed:
            return None
        tweak(control, self._replaced)
        return "tweaked the partition table"

    def _drop(self, control: NeoCTL) -> str | None:
        """Forget the storages that were replaced, of which nothing is needed any more."""
        if not self._replaced:
            return None
        for storage in self._replaced:
            control.dropNode(storage)
        return f"dropped {names(self._replaced)}, which others have replaced"

    def _settle(self, *state: Any) -> None:
        """Remember that nothing is left to do in this state."""
        self._settled = state


def _in_state(storages: dict[int, Any], state: Any) -> list[int]:
    """Return the storages in a state, in order."""
    return sorted(storage for storage, found in storages.items() if found == state)


def _is_copying(rows: list[Any], replaced: list[int]) -> bool:
    """Return whether some cell that counts is not yet, or no longer, fully up to date."""
    return any(
        cell[1] != CellStates.UP_TO_DATE for row in rows for cell in row if cell[0] not in replaced
    )


def _options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--admin", required=True, help="address of the admin node")
    parser.add_argument(
        "--certificates", type=Path, help="folder of the certificate (default: no TLS)"
    )
    parser.add_argument("--storage-count", required=True, type=int)
    parser.add_argument("--replicas", required=True, type=int)
    parser.add_argument("--cluster", default="", help="name of the cluster, for its clients")
    parser.add_argument("--masters", default="", help="addresses of its masters")
    parser.add_argument("--master-url", help="where operators ask for something (default: nowhere)")
    parser.add_argument("--computer", default="", help="the computer of this partition")
    parser.add_argument("--partition", default="", help="its name")
    parser.add_argument("--master-certificate", default="", help="with which it calls the master")
    parser.add_argument("--master-key", default="")
    return parser.parse_args()


def _channel(options: argparse.Namespace) -> Channel:
    """Return the way to the master, at which nobody listens unless its URL is known."""
    channel = Channel(
        Place(
            options.master_url or "",
            options.computer,
            options.partition,
            options.master_certificate,
            options.master_key,
        )
    )
    if options.master_url:
        channel.start()
    return channel


def main() -> None:
    """Look and step for ever, until SIGTERM."""
    options = _options()
    # NEO's logger, which is imported, has taken the place for itself, and shows warnings only.
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout, force=True
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    address = parseNodeAddress(options.admin)
    files = certificates.files_in(options.certificates) if options.certificates else None
    keeper = Keeper(options.storage_count, options.replicas)
    channel = _channel(options)
    desk = Desk(channel, Access(options.cluster, options.masters, options.certificates))
    try:
        while True:
            control = NeoCTL(address, ssl=files)
            try:
                _keep(control, keeper, desk, channel)
            except NotReadyException:
                pass  # no admin or no primary master for now
            except (RuntimeError, OperationError) as error:
                log.info("the master refused: %s", error)
            except SystemExit as refusal:
                log.info("%s", refused(refusal))
            finally:
                control.close()
            channel.wait(INTERVAL)
    finally:
        desk.stop()


def _keep(control: NeoCTL, keeper: Keeper, desk: Desk, channel: Channel) -> NoReturn:
    """Do what is asked for and step, over and over.

    However often something is asked for, the steps keep their distance: a storage counts as
    replaced by the number of looks that found it so.
    """
    next_step = time.monotonic()
    while True:
        desk.work(control)
        if not desk.is_alone and time.monotonic() >= next_step:
            done = keeper.step(control)
            if done:
                log.info("%s", done)
            next_step = time.monotonic() + INTERVAL
        channel.wait(BUSY_INTERVAL if desk.is_busy else INTERVAL)


if __name__ == "__main__":
    main()
