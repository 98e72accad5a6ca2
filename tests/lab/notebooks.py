# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster that has a notebook server for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil
from cluster import RECOVERY_TIME, Cluster
from patience import wait_for

NODE = "notebook-0"


@contextlib.contextmanager
def notebook_server(cluster: Cluster) -> Iterator[str]:
    """Change the cluster in place to have one until the end; yield the address of its page."""
    cluster.wait_until_well()
    change(cluster, 1)
    page = wait_for(lambda: cluster.root["connection"].get("notebooks"), "it is published")
    cluster.wait_until_well()
    yield page
    cluster.wait_until_well()
    process = cluster.process(NODE)
    change(cluster, 0)
    wait_for(lambda: NODE not in cluster.nodes(), "the node is gone")
    psutil.wait_procs([process], RECOVERY_TIME)
    assert not process.is_running()
    cluster.wait_until_well()
    assert "notebooks" not in cluster.root["connection"]


def change(cluster: Cluster, count: int) -> None:
    """Ask for so many."""
    done = cluster.request(notebook_count=count)
    assert done.returncode == 0, done.stdout + done.stderr
