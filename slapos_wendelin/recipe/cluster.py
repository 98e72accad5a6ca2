# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes of the root instance of a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zc.buildout import UserError

from slapos_wendelin import parameters
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.topology import as_plain_data, cluster_nodes


class Parameters:
    """Check the parameters of a cluster and derive its nodes.

    Options: ``schema`` (path of the JSON schema), ``configuration`` (what was requested), ``group``
    (name of the instance tree), ``state`` (file that remembers the parameters the cluster was
    created with). Gives ``parameters`` (complete) and ``nodes`` (see slapos_wendelin.topology).
    """

    def __init__(self, _buildout: Any, _name: str, options: Any) -> None:
        self.state = Path(options["state"])
        previous = json.loads(self.state.read_text()) if self.state.exists() else None
        try:
            schema = parameters.load_schema(Path(options["schema"]))
            self.parameters = parameters.check(schema, options["configuration"], previous)
            nodes = cluster_nodes(self.parameters, options["group"])
        except ParameterError as error:
            raise UserError(str(error)) from error
        options["parameters"] = self.parameters
        options["nodes"] = as_plain_data(nodes)

    def install(self) -> list[str]:
        """Remember what the cluster looks like; the file is no part to be uninstalled."""
        write_atomically(self.state, json.dumps(self.parameters, indent=2, sort_keys=True))
        return []

    update = install


class RememberedPeers:
    """Give the addresses that the Peers recipe remembered in ``state``, or nothing at first.

    Peers must be told of each other, but their addresses are known only after they are requested.
    Asking with the remembered addresses keeps a request unchanged from one run to the next.
    """

    def __init__(self, _buildout: Any, _name: str, options: Any) -> None:
        state = Path(options["state"])
        options["addresses"] = state.read_text().strip() if state.exists() else ""

    def install(self) -> list[str]:
        """Install nothing."""
        return []

    update = install


class Peers:
    """Tell peers of each other once all of them have an address.

    Options: ``remembered`` (name of the RememberedPeers section), ``sections`` (names of request
    sections that take ``config-masters``), ``of`` (those of them whose addresses make the list),
    ``wait-for`` (sections of other nodes that must have an address first). Gives ``addresses``
    and ``comma-separated``. Raises UserError while one of all these has not published its address:
    the nodes that need the list are requested on a later run.
    """

    def __init__(self, buildout: Any, _name: str, options: Any) -> None:
        remembered = buildout[options["remembered"]]
        peers = {section: buildout[section] for section in options["of"].split()}
        others = [buildout[section] for section in options["wait-for"].split()]
        waiting = [
            node["name"] for node in (*peers.values(), *others) if not node["connection-address"]
        ]
        if waiting:
            raise UserError(f"waiting for {', '.join(waiting)} to publish an address")
        addresses = " ".join(peer["connection-address"] for peer in peers.values())
        options["addresses"] = addresses
        options["comma-separated"] = addresses.replace(" ", ",")
        if addresses != remembered["addresses"]:
            for section in options["sections"].split():
                request = buildout[section]
                request["config-masters"] = addresses
                request.recipe.__init__(buildout, section, request)
            write_atomically(Path(remembered["state"]), addresses)

    def install(self) -> list[str]:
        """Install nothing: all is said by the requests."""
        return []

    update = install
