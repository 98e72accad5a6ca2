# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clusters with a NEO admin, and what their keepers say to the master."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from master_cloud import RELEASE, Cloud
from secure_cloud import Caller, SecureCloud

from slapos_wendelin.neo.master_line import MasterLine, Place


class Keeper:
    """A run of a cluster's keeper, which says what a test has it say."""

    def __init__(self, place: Place, name: str = "first") -> None:
        self.place = place
        self.name = name
        self.line = MasterLine(place)

    def again(self, name: str = "second") -> Keeper:
        """Return the run after this one."""
        return Keeper(self.place, name)

    def ask(self, after: int = 0, timeout: float = 0.0) -> dict[str, Any]:
        """Return what the master has for it to do."""
        query = {"keeper": self.name, "after": after, "timeout": timeout}
        return self.line.call("GET", "cluster/operations", query={**self.place.names, **query})

    def orders(self) -> list[int]:
        """Return the numbers of what it has to do."""
        return [each["operation"] for each in self.ask()["operations"]]

    def say(self, operation: int, state: str, **values: Any) -> dict[str, Any]:
        """Tell how an operation goes."""
        body = {**self.place.names, "keeper": self.name, "state": state, **values}
        return self.line.call("PUT", f"cluster/operations/{operation}", body=body)

    def take(self, operation: int) -> dict[str, Any]:
        """Take an operation."""
        return self.say(operation, "running", take=True)


def plain_cluster(cloud: Cloud, reference: str) -> Keeper:
    """Request a cluster of a root and a NEO admin, of a master in clear."""
    cloud.add_computer(f"computer-of-{reference}", partitions=3, datacenter="paris")
    sla = {"computer_guid": f"computer-of-{reference}"}
    root = cloud.request(reference, filter_kw=sla)
    admin = cloud.request_from(root, "neo-admin", software_type="neo-admin", filter_kw=sla)
    return Keeper(Place(cloud.url, sla["computer_guid"], admin.slap_computer_partition_id))


class SecureCluster:
    """A cluster of a root, a NEO admin and a worker, each with its certificate."""

    def __init__(self, cloud: SecureCloud, reference: str) -> None:
        self.cloud = cloud
        self.computer = f"computer-of-{reference}"
        cloud.add_computer(self.computer, partitions=4)
        root = cloud.request(reference, filter_kw={"computer_guid": self.computer})
        self.root = cloud.holder("partition", root.getInstanceGuid())
        self.partition = self.root.slap.registerComputerPartition(self.computer, root.getId())
        self.admin_place, self.admin = self.node("neo-admin")
        self.worker_place, self.worker = self.node("dask-worker")
        self.keeper = self.keeper_at(self.admin_place, self.admin)

    def node(self, software_type: str) -> tuple[str, Caller]:
        """Request a node; return its partition and a caller with its certificate."""
        made = self.partition.request(
            RELEASE, software_type, software_type, filter_kw={"computer_guid": self.computer}
        )
        return made.getId(), self.cloud.holder("partition", made.getInstanceGuid())

    def keeper_at(self, partition: str, caller: Caller) -> Keeper:
        """Return a keeper that names a partition and shows somebody's certificate."""
        path = str(caller.certificate)
        both = Path(path).with_suffix(".both.pem")
        both.write_text(Path(path).read_text() + caller.authority.read_text())
        return Keeper(Place(caller.url, self.computer, partition, str(both), str(both)))
