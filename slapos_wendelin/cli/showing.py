# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the nodes of a tree while they become ready."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from slapos_wendelin.master.client import Document, MasterClient
from slapos_wendelin.waiting import Node, Patience, follow


def wait(master: MasterClient, guid: str, patience: Patience, out: Console) -> Document:
    """Show the nodes of an instance's tree until all are well; return the root then.

    A terminal shows a table that changes, anything else a line for each change of a node.

    :raises FailedNodeError: when a node fails.
    :raises NotReadyError: when it takes too long.
    """
    began = time.monotonic()
    release_url = master.instance(guid)["release_url"]
    steps = follow(lambda: master.instance(guid), lambda: master.software(release_url), patience)
    if out.is_terminal:
        _show_table(steps, out, began)
    else:
        _print_lines(steps, out, began)
    return master.instance(guid)


def _show_table(steps: Iterator[list[Node]], out: Console, began: float) -> None:
    """Show a table that changes in place."""
    with Live(console=out, refresh_per_second=4) as live:
        for nodes in steps:
            live.update(_table(nodes, time.monotonic() - began))


def _table(nodes: list[Node], seconds: float) -> Table:
    """Return the nodes as a table."""
    well = sum(not node.fault for node in nodes)
    table = Table(
        "node", "place", "state", "", title=f"{well} of {len(nodes)} nodes well, {seconds:.0f} s"
    )
    for node in nodes:
        fault = Text(node.fault, style="red" if node.error else "yellow")
        mark = fault if node.fault else Text("well", style="green")
        table.add_row(Text(node.name), Text(node.place), Text(node.state), mark)
    return table


def _print_lines(steps: Iterator[list[Node]], out: Console, began: float) -> None:
    """Print a line for each change of a node."""
    shown: dict[str, Node] = {}
    for nodes in steps:
        for node in nodes:
            if shown.get(node.name) == node:
                continue
            shown[node.name] = node
            well = sum(not each.fault for each in nodes)
            out.print(
                f"{time.monotonic() - began:5.0f} s  {well}/{len(nodes)}  "
                f"{node.name}  {node.place}  {node.fault or node.state}"
            )
