# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell the state of a NEO cluster, as its admin node knows it, in JSON.

Runs with the interpreter of the environment that NEO is installed in:
``python -m slapos_wendelin.neo.state --admin HOST:PORT``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from neo.lib.protocol import uuid_str
from neo.lib.util import parseNodeAddress
from neo.neoctl.neoctl import NeoCTL, NotReadyException

from slapos_wendelin.neo import certificates


def read_state(control: NeoCTL) -> dict[str, Any]:
    """Return the state of the cluster as plain data.

    Keys: ``cluster`` (state), ``primary`` (id of the master that leads), ``replicas``, ``nodes``
    (type, id, address, state of each) and ``partition-table`` (for each NEO partition a list of
    pairs of node id and cell state). The last three are empty while no master leads.
    """
    state: dict[str, Any] = {
        "cluster": str(control.getClusterState()),
        "primary": None,
        "replicas": None,
        "nodes": [],
        "partition-table": [],
    }
    try:
        state["primary"] = uuid_str(control.getPrimary())
        state["nodes"] = [_describe(node) for node in control.getNodeList()]
        _, state["replicas"], rows = control.getPartitionRowList()
        # Once more: the admin node may have reached the primary master between the questions.
        state["cluster"] = str(control.getClusterState())
    except (NotReadyException, RuntimeError):
        return state
    state["partition-table"] = [[(uuid_str(node), str(cell)) for node, cell in row] for row in rows]
    return state


def _describe(node: tuple[Any, ...]) -> dict[str, Any]:
    """Return type, id, address and state of a node of the protocol's node list."""
    node_type, address, node_id, node_state = node[:4]
    host_and_port = None
    if address:
        host = address[0].decode() if isinstance(address[0], bytes) else address[0]
        host_and_port = f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
    return {
        "type": str(node_type),
        "id": uuid_str(node_id),
        "address": host_and_port,
        "state": str(node_state),
    }


def main() -> None:
    """Print the state; exit 1 with the reason when the admin node or the masters are away."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--admin", required=True, help="address of the admin node")
    parser.add_argument(
        "--certificates", type=Path, help="folder of the certificate (default: no TLS)"
    )
    options = parser.parse_args()
    files = certificates.files_in(options.certificates) if options.certificates else None
    control = NeoCTL(parseNodeAddress(options.admin), ssl=files)
    try:
        json.dump(read_state(control), sys.stdout)
    except NotReadyException as error:
        sys.exit(f"not ready: {error}")
    finally:
        control.close()


if __name__ == "__main__":
    main()
