# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster of NEO's own programs with a keeper, and a master at which it is asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keepers import plain_cluster
from master_cloud import Cloud, serving
from neo_programs import Cluster, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


class Kept:
    """A cluster with a keeper that takes no steps of its own, and a master to ask it at."""

    def __init__(self, cluster: Cluster, cloud: Cloud) -> None:
        self.cluster = cluster
        self.cloud = cloud
        self.client = cloud.client
        self.place = place = plain_cluster(cloud, "cluster").place
        self.arguments = [
            # One more storage than there is: until it has come, the keeper itself does nothing.
            *("--admin", cluster.admin, "--storage-count", "4", "--replicas", "1"),
            *("--cluster", "demo", "--masters", cluster.masters, "--master-url", place.url),
            *("--computer", place.computer, "--partition", place.partition),
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the keeper."""
        command = [self.cluster.programs / "python", "-m", "slapos_wendelin.neo.keeper"]
        with (self.cluster.folder / "keeper.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.arguments],
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End the keeper as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def publish(self) -> None:
        """Let the instance tree have a node for a storage, named paris-storage."""
        address = next(
            each["address"] for each in self.look()["result"]["nodes"] if each["id"] == "S1"
        )
        place = {"computer_guid": self.place.computer}
        root = self.cloud.request("cluster", filter_kw=place)
        storage = self.cloud.request_from(root, "paris-storage", filter_kw=place)
        partition = self.cloud.slap.registerComputerPartition(
            self.place.computer, storage.slap_computer_partition_id
        )
        partition.setConnectionDict({"_": json.dumps({"address": address})})

    def look(self, kind: str = "state", **arguments: Any) -> dict[str, Any]:
        """Return what a look ended with."""
        return self.end_of(self.client.look_at("cluster", kind, arguments)["operation"])

    def do(self, kind: str, **arguments: Any) -> dict[str, Any]:
        """Return what an operation ended with."""
        return self.end_of(self.client.operate("cluster", kind, arguments)["operation"])

    def end_of(self, number: int, *phases: str) -> dict[str, Any]:
        """Wait until an operation is over, or in one of some phases."""
        found: list[dict[str, Any]] = []

        def is_over() -> bool:
            found[:] = [self.client.operation("cluster", number)]
            is_open = found[0]["state"] in {"waiting", "running"}
            return not is_open or found[0]["progress"].get("phase") in phases

        wait_until(is_over)
        return found[0]

    def lose(self, name: str) -> str:
        """Kill a storage for good; return what NEO calls it."""
        self.cluster.end(name, signal.SIGKILL)
        return self.cluster.lost()


@contextmanager
def kept_cluster(programs: Path, folder: Path) -> Iterator[Kept]:
    """Run a cluster of three storages with a keeper."""
    with (
        Cluster(programs, folder, storages=3) as cluster,
        serving(folder / "master.sqlite") as cloud,
    ):
        wait_until(lambda: cluster.ask("print", "pt").count("U") == 8)
        kept = Kept(cluster, cloud)
        try:
            yield kept
        finally:
            kept.kill()
