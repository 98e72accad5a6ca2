# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes that a cluster is made of, derived from its parameters.

Pure functions: the root instance turns each node into a request, and the tests ask for clusters of
any shape.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from slapos_wendelin.errors import ParameterError

#: Parameters that a node is given only when the root instance runs, by its software type: they are
#: what other nodes publish.
RUN_TIME_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "neo-master": ("masters",),
    "neo-admin": ("masters",),
    "neo-storage": ("masters", "admin"),
    "dask-scheduler": (),
    "dask-worker": ("scheduler", "zodb-uri"),
    "notebook": ("scheduler", "zodb-uri"),
}

#: The order in which the root instance requests its nodes, by software type: those whose addresses
#: others need come first.
_REQUEST_ORDER = (
    *("neo-master", "dask-scheduler", "neo-admin", "neo-storage"),
    *("dask-worker", "notebook"),
)

#: Override keys that say where a node goes; all others are given to the node itself.
PLACEMENT_KEYS = ("data-center", "computer")


@dataclass(frozen=True)
class Node:
    """One node of a cluster, as the root instance requests it.

    ``configuration`` holds the node's own parameters, ``sla`` where it may go.
    """

    name: str
    software_type: str
    configuration: dict[str, Any] = field(default_factory=dict)
    sla: dict[str, str] = field(default_factory=dict)


def cluster_nodes(parameters: Mapping[str, Any], group: str) -> list[Node]:
    """Return every node of the cluster that *parameters* (defaults filled in) describe.

    *group* is the name of the instance tree: nodes of one type in one tree are spread over the
    data centers. Raises ParameterError for an override whose pattern names no node.
    """
    cluster = {"cluster": parameters["cluster"]}
    database = cluster | {
        "partitions": parameters["partitions"],
        "replicas": parameters["replicas"],
        "storage-count": parameters["storage-count"],
    }
    bandwidth = _bytes(parameters["replication-bandwidth"])
    storage = cluster | {"replication-bandwidth": bandwidth} | _engine(parameters)
    worker = {
        "memory-limit": parameters["worker-memory-limit"],
        "threads": parameters["worker-threads"],
    }
    nodes = [
        *_several("neo-master", parameters["master-count"], database),
        Node("neo-admin", "neo-admin", database),
        *_several("neo-storage", parameters["storage-count"], storage),
        Node("dask-scheduler", "dask-scheduler"),
        *_several("dask-worker", parameters["worker-count"], worker),
        # A release from before there were notebooks does not have the parameter.
        *_several("notebook", parameters.get("notebook-count", 0), {}),
    ]
    overrides: Mapping[str, Mapping[str, Any]] = parameters["overrides"]
    _check_patterns(overrides, nodes)
    return [_complete(node, parameters["data-centers"], group, overrides) for node in nodes]


def cluster_requests(parameters: Mapping[str, Any], group: str) -> list[dict[str, Any]]:
    """Return what the root instance will request, in its order, for a plan of the master.

    *parameters* and *group* are those of `cluster_nodes`.
    """
    nodes = cluster_nodes(parameters, group)
    nodes.sort(key=lambda node: _REQUEST_ORDER.index(node.software_type))
    return [
        {
            "reference": node.name,
            "software_type": node.software_type,
            "parameters": node.configuration,
            "run_time": list(RUN_TIME_PARAMETERS[node.software_type]),
            "sla": node.sla,
        }
        for node in nodes
    ]


def cluster_cautions(
    parameters: Mapping[str, Any], data_centers: Callable[[], Collection[str]]
) -> list[str]:
    """Return what users must know of where copies can be.

    *data_centers* returns those that there are, and is called only when it matters: two copies have
    two places wherever there is more than one data center, and in a single one all share it anyway.
    """
    copies = parameters["replicas"] + 1
    if copies <= 2:  # noqa: PLR2004
        return []
    centers = sorted(parameters["data-centers"] or data_centers())
    if len(centers) == 1 or copies <= len(centers):
        return []
    text = (
        f"replicas {parameters['replicas']}: {copies} copies of each NEO partition are more than"
        f" the data centers that they may be in ({', '.join(centers)}), so some share one and are"
        " lost together with it"
    )
    return [text]


def as_plain_data(nodes: list[Node]) -> list[dict[str, Any]]:
    """Return *nodes* as dictionaries, which templates can loop over."""
    return [asdict(node) for node in nodes]


def _engine(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a storage is told of its engine; only releases with MariaDB can set more."""
    engine = {"storage-engine": parameters["storage-engine"]}
    if parameters["storage-engine"] == "sqlite":
        return engine
    return engine | {key: parameters[key] for key in ("durability", "mariadb")}


def _bytes(amount: str) -> int:
    """Return how many bytes an amount with its unit are; 0 for one that is unlimited."""
    for power, unit in ((2, "MiB"), (3, "GiB")):
        if amount.endswith(unit):
            return int(amount.removesuffix(unit)) * 1024**power
    return 0


def _several(software_type: str, count: int, configuration: dict[str, Any]) -> list[Node]:
    """Return *count* numbered nodes of one type."""
    return [
        Node(f"{software_type}-{number}", software_type, dict(configuration))
        for number in range(count)
    ]


def _check_patterns(overrides: Mapping[str, Any], nodes: list[Node]) -> None:
    """Refuse a pattern that matches nothing: it is a misspelling more often than a wish."""
    for pattern in overrides:
        if not any(fnmatchcase(node.name, pattern) for node in nodes):
            names = ", ".join(node.name for node in nodes)
            raise ParameterError(
                f"overrides: the pattern {pattern!r} matches no node of the cluster",
                f"the nodes are {names}",
            )


def _complete(
    node: Node,
    data_centers: list[str],
    group: str,
    overrides: Mapping[str, Mapping[str, Any]],
) -> Node:
    """Add the spread over data centers, then the overrides in their order."""
    sla = {"spread": "datacenter", "group": f"{group}/{node.software_type}"}
    if data_centers:
        sla["datacenter"] = ",".join(data_centers)
    configuration = dict(node.configuration)
    for pattern, values in overrides.items():
        if not fnmatchcase(node.name, pattern):
            continue
        configuration |= {k: v for k, v in values.items() if k not in PLACEMENT_KEYS}
        if "data-center" in values:
            sla["datacenter"] = values["data-center"]
        if "computer" in values:
            sla.pop("datacenter", None)
            sla["computer_guid"] = values["computer"]
    return Node(node.name, node.software_type, configuration, sla)
