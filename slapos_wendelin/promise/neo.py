# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the promises of NEO nodes share: a look at the cluster through its admin node."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from slapos_wendelin.promise.base import BrokenPromiseError

#: Seconds that the admin node may take to answer.
TIME_LIMIT = 10


def cluster_state(python: str, admin: str) -> dict[str, Any]:
    """Return what ``slapos_wendelin.neo.state`` tells of the cluster.

    *python* is the interpreter of the environment that NEO is installed in, *admin* the address of
    the admin node. Raises BrokenPromiseError when there is no answer.
    """
    command = [python, "-m", "slapos_wendelin.neo.state", "--admin", admin]
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
