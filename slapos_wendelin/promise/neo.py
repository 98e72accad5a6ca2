# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the promises of NEO nodes share: a look at the cluster through its admin node."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from slapos_wendelin.promise.base import BrokenPromiseError, Promise

#: Seconds that the admin node may take to answer.
TIME_LIMIT = 10


def cluster_state(promise: Promise) -> dict[str, Any]:
    """Return what ``slapos_wendelin.neo.state`` tells of the cluster.

    The promise is configured with ``python``, the interpreter of the environment that NEO is
    installed in, ``admin``, the address of the admin node, and ``certificates``, the folder of
    the partition's certificate in the cluster if it has one. Raises BrokenPromiseError when there
    is no answer.
    """
    admin = promise.getConfig("admin")
    command = [promise.getConfig("python"), "-m", "slapos_wendelin.neo.state", "--admin", admin]
    certificates = promise.getConfig("certificates")
    if certificates:
        command += ["--certificates", certificates]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise BrokenPromiseError(
            f"the admin node at {admin} did not answer in {TIME_LIMIT} s"
        ) from None
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BrokenPromiseError(f"the admin node at {admin} does not answer: {reason}")
    state: dict[str, Any] = json.loads(answer.stdout)
    return state


def cell_states(state: dict[str, Any], node_id: str) -> list[str]:
    """Return the states of the cells that the node *node_id* has in the partition table."""
    return [cell[1] for row in state["partition-table"] for cell in row if cell[0] == node_id]
