# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that becomes full under a storage on SQLite: told, survived, and mended by making room."""

from __future__ import annotations

import re
from pathlib import Path

from cluster import Cluster, copies
from environment import Environment, wait_for
from promised import check_copies, promised

#: MiB of a disk with room for all that the test writes.
SMALL_DISK = 1000


def test_a_full_disk_is_told_stops_nothing_and_heals_when_there_is_room(
    environment: Environment, cluster: Cluster, tmp_path: Path
) -> None:
    storage = "neo-storage-1"
    folder = cluster.folder(storage) / "srv"
    full = f"the disk of {folder} is full (free some, and it goes on by itself)"
    with environment.small_disk(folder, SMALL_DISK) as disk:
        cluster.wait_until_well()
        with promised(cluster, "full", tmp_path) as client:
            disk.leave(4)
            wait_for(lambda: 1 in copies(cluster.state()), "the storage is lost")
            says = {
                (storage, "storage-disk"): re.escape(full),
                (storage, "neo-storage-listens"): "nothing listens at .*; .*" + re.escape(full),
            }
            cluster.look_until(*says, is_red=True, says=says, by_service=True)
            wait_for(lambda: full in cluster.error(storage), "the master is told")
            status = environment.slapos("cluster", "status", "wendelin-cluster")
            assert full in " ".join(status.stdout.split())
            client.wait_for_commits()
            disk.leave(400)
            state = cluster.wait_until_well()
            assert list(copies(state)) == [2] * 12
            client.wait_for_commits()
        client.check()
        check_copies(cluster)
