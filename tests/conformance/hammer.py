# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill nodes of NEO at random while its admin is asked without a pause and a client commits.

Finds what no test was written for: any traceback, any program that ends by itself and any commit
that is lost ends it with status 1, and leaves the logs of all nodes. It is no test of the suite,
since two runs of one seed are never the same.
"""

import argparse
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from neo_programs import PATIENCE, Cluster, begin_commit, commit, end_commit, last_value, wait_until
from neo_suite import build_environment

#: Asks an admin for all that harms no data, at random, until a time of this machine.
ASKER = """
import random, sys, time
from neo.lib.protocol import NodeStates, NodeTypes, ZERO_TID
from neo.lib.util import parseNodeAddress
from neo.neoctl.neoctl import NeoCTL, NotReadyException
address, until, seed = parseNodeAddress(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
choice = random.Random(seed).choice
def storages(running=True):
    return [
        node[2] for node in control.getNodeList(NodeTypes.STORAGE)
        if running or node[3] is not NodeStates.RUNNING
    ]
questions = [
    lambda: control.getClusterState(),
    lambda: control.getLastIds(),
    lambda: control.getLastTransaction(),
    lambda: control.getNodeList(),
    lambda: control.getPartitionRowList(),
    lambda: control.getPrimary(),
    lambda: control.getRecovery(),
    lambda: control.checkReplicas({0: None, 1: None}, ZERO_TID, None),
    lambda: control.enableStorageList(storages()),
    lambda: control.repair(storages(), 1),
    lambda: control.setNumReplicas(1),
    lambda: control.tweakPartitionTable([], True),
    lambda: control.tweakPartitionTable(storages(running=False)),
]
while time.monotonic() < until:
    control = NeoCTL(address, ssl=None)
    try:
        while time.monotonic() < until:
            try:
                choice(questions)()
            except (RuntimeError, SystemExit):
                pass  # refused
    except NotReadyException:
        pass
    finally:
        control.close()
"""


class Hammer:
    """One run: what is killed when follows from a seed."""

    def __init__(self, cluster: Cluster, seed: int, seconds: float) -> None:
        """Describe a run on a cluster that runs."""
        self.cluster = cluster
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.until = time.monotonic() + seconds
        self.askers: list[subprocess.Popen[bytes]] = []
        self.kills = 0

    def run(self) -> None:
        """Ask, kill and commit until the time is over, and check what is left."""
        client = self.cluster.client()
        commit(client, 0)
        for _ in range(3):
            self._ask()
        while time.monotonic() < self.until:
            begin_commit(client, self.kills + 1)
            self._kill_one()
            self._check()
            end_commit(client, self.kills)
        for asker in self.askers:
            assert asker.wait(PATIENCE) == 0, "who asks the admin has failed"
        wait_until(lambda: self.cluster.state() == "RUNNING")
        commit(client, self.kills + 1)
        assert last_value(client) == f"value {self.kills + 1}\n"
        self._check()

    def _ask(self) -> None:
        """Start one more program that asks."""
        arguments = (self.cluster.admin, str(self.until), str(self.random.random()))
        command = [self.cluster.programs / "python", "-c", ASKER, *arguments]
        self.askers.append(subprocess.Popen(command))

    def _kill_one(self) -> None:
        """End a node or one that asks, in one way or another, and start it again."""
        self.kills += 1
        name = self.random.choice(["asker", *self.cluster.commands])
        if name == "asker":
            asker = self.askers.pop(0)
            asker.kill()
            asker.wait()
            self._ask()
        else:
            self.cluster.end(name, self.random.choice([signal.SIGKILL, signal.SIGTERM]))
            time.sleep(self.random.uniform(0, 2))
            self.cluster.start(name)
        time.sleep(self.random.uniform(0, 1.5))

    def _check(self) -> None:
        """Fail where a node has ended by itself or has met what it did not expect."""
        ended = self.cluster.ended()
        assert not ended, f"{', '.join(ended)} ended by themselves"
        assert "Traceback" not in self.cluster.errors(), "a node has a traceback"


def main() -> None:
    """Hammer one cluster; keep its folder when something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--quorum", action="store_true", help="masters need a majority")
    options = parser.parse_args()
    programs = Path(build_environment()).parent
    folder = Path(tempfile.mkdtemp(prefix="hammer-"))
    with Cluster(programs, folder, masters=3, storages=3, quorum=options.quorum) as cluster:
        hammer = Hammer(cluster, options.seed, options.seconds)
        try:
            hammer.run()
        except BaseException:
            print(f"The logs of all nodes are in {folder}.")
            raise
        finally:
            for asker in hammer.askers:
                asker.kill()
                asker.wait()
    shutil.rmtree(folder)
    print(f"{hammer.kills} ended and started again, {hammer.kills + 2} commits found")


if __name__ == "__main__":
    main()
