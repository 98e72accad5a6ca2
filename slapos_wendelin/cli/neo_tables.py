# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NEO of a cluster as documents and tables: its nodes, their cells, the partition table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from slapos_wendelin.cli.neo_operations import Nodes, progress_of
from slapos_wendelin.master.client import Document

#: The states of cells, by their letters; the first is that of a cell that is well.
STATES = {"U": "UP_TO_DATE", "O": "OUT_OF_DATE", "F": "FEEDING", "C": "CORRUPTED"}

#: What a cell in that state is, in a word.
_WORDS = {"U": "", "O": "copying", "F": "until copied", "C": "corrupted"}
_STYLES = {"U": "", "O": "yellow", "F": "cyan", "C": "red"}
_RUNNING = "RUNNING"
_NODE_STYLES = {_RUNNING: "green", "PENDING": "yellow"}

_OPERATION_STYLES = {"done": "green", "failed": "red", "cancelled": ""}

#: The columns that are narrow, or of no use in pieces.
_UNFOLDED = frozenset({"node", "storage", "name", "state", "operation", "by", "asked for at"})

_NO_CELL = "."


def place(node: Document) -> Document:
    """Return which node it is and where."""
    return {key: node[key] for key in ("id", "name", "computer", "datacenter")}


def partition_table(state: Document, nodes: Nodes) -> Document:
    """Return the cells of each NEO partition, with the places of their storages."""
    rows = [
        {
            "partition": offset,
            "cells": [
                {
                    **place(nodes.find(storage)),
                    "node_state": nodes.find(storage)["state"],
                    "state": STATES[letters[offset]],
                }
                for storage, letters in _by_name(state["cells"], nodes)
                if letters[offset] != _NO_CELL
            ],
        }
        for offset in range(state["partitions"])
    ]
    return {"cluster": state["cluster"], "replicas": state["replicas"], "partitions": rows}


def cells(state: Document, nodes: Nodes, storages: Sequence[str]) -> list[Document]:
    """Return what each storage has: how many cells in each state, and which.

    :param storages: NEO's names of those to tell of; all when it is empty.
    """
    found = []
    for node in nodes.storages:
        if storages and node["id"] not in storages:
            continue
        letters = state["cells"].get(node["id"], "")
        count = Counter(letters)
        of_state = {name: count[letter] for letter, name in STATES.items()}
        partitions = {
            str(offset): STATES[letter]
            for offset, letter in enumerate(letters)
            if letter != _NO_CELL
        }
        found.append(
            {
                **place(node),
                "state": node["state"],
                "cells": sum(of_state.values()),
                "states": of_state,
                "partitions": partitions,
            }
        )
    return found


def show_nodes(state: Document, nodes: Nodes) -> Table:
    """Return the nodes as a table."""
    table = _table("node", "", "name", "state", "computer", "data center", "address")
    for node in nodes.nodes:
        is_primary = node["id"] == state["primary"]
        table.add_row(
            node["id"],
            node["type"].lower(),
            Text(node["name"]),
            Text(
                node["state"] + (", primary" if is_primary else ""),
                style=_NODE_STYLES.get(node["state"], "red"),
            ),
            Text(node["computer"]),
            Text(node["datacenter"]),
            Text(node["address"] or ""),
        )
    return table


def show_partition_table(document: Document) -> Table:
    """Return the partition table: one line for each NEO partition."""
    copies = max((len(row["cells"]) for row in document["partitions"]), default=0)
    table = _table("partition", *(["cells"] + [""] * (copies - 1))[:copies])
    for row in document["partitions"]:
        table.add_row(str(row["partition"]), *map(_cell, row["cells"]))
    return table


def show_cells(found: Iterable[Document]) -> Table:
    """Return what the storages have as a table."""
    table = _table("storage", "name", "state", "computer", "data center", "cells", "")
    for each in found:
        table.add_row(
            each["id"],
            Text(each["name"]),
            Text(each["state"], style=_NODE_STYLES.get(each["state"], "red")),
            Text(each["computer"]),
            Text(each["datacenter"]),
            str(each["cells"]),
            _not_well(each),
        )
    return table


def show_partitions_of(storage: Document) -> Table:
    """Return the cells of one storage as a table."""
    table = _table("partition", "state")
    letters = {name: letter for letter, name in STATES.items()}
    for partition, state in storage["partitions"].items():
        table.add_row(partition, Text(state, style=_STYLES[letters[state]]))
    return table


def show_tweak(result: Document, nodes: Nodes) -> Table:
    """Return what a tweak changes, one line for each storage."""
    table = _table("storage", "name", "computer", "data center", "cells", "", "to copy", "to give")
    for storage, letters in _by_name(result["before"] | result["after"], nodes):
        before = result["before"].get(storage, _NO_CELL * len(letters))
        after = result["after"].get(storage, _NO_CELL * len(letters))
        node = nodes.find(storage)
        table.add_row(
            storage,
            Text(node["name"]),
            Text(node["computer"]),
            Text(node["datacenter"]),
            str(_count(before)),
            f"-> {_count(after)}",
            str(_gained(before, after) or ""),
            str(after.count("F") or ""),
        )
    return table


def show_operations(found: Iterable[Document]) -> Table:
    """Return operations as a table, the oldest first."""
    table = _table("operation", "", "by", "asked for at", "state", "")
    for each in found:
        table.add_row(
            str(each["operation"]),
            each["kind"],
            Text(each["by"].partition("/")[2] or each["by"]),
            each["created_at"][:19].replace("T", " "),
            Text(each["state"], style=_OPERATION_STYLES.get(each["state"], "yellow")),
            Text(each["error"] or progress_of(each) * (each["state"] == "running")),
        )
    return table


def copies_to_make(result: Document) -> int:
    """Return how many cells have to be copied after a tweak."""
    return sum(
        _gained(result["before"].get(storage, _NO_CELL * len(after)), after)
        for storage, after in result["after"].items()
    )


def _gained(before: str, after: str) -> int:
    """Return how many cells a storage has to copy that it had not."""
    return sum(old == _NO_CELL and new == "O" for old, new in zip(before, after, strict=True))


def _count(letters: str) -> int:
    """Return how many cells a storage is to have in the end."""
    return sum(letter in "UOC" for letter in letters)


def _by_name(by_storage: Document, nodes: Nodes) -> Iterator[tuple[str, str]]:
    """Yield storages with what they have, in the order of their names."""
    known = [each["id"] for each in nodes.storages if each["id"] in by_storage]
    for storage in [*known, *sorted(by_storage.keys() - set(known))]:
        yield storage, by_storage[storage]


def _cell(cell: Document) -> Text:
    """Return a cell in a few words."""
    letter = next(each for each, name in STATES.items() if name == cell["state"])
    where = ", ".join(filter(None, (cell["computer"], cell["datacenter"])))
    text = Text(cell["name"] or cell["id"], style=_STYLES[letter])
    text.append(f" ({where})" if where else "", style="dim")
    word = _word(letter, cell["node_state"])
    if word:
        text.append(f" {word}", style=_STYLES[letter])
    return text


def _word(letter: str, node_state: str) -> str:
    """Say how a cell is that is not well; what is away copies nothing."""
    if letter == "O" and node_state != _RUNNING:
        return "out of date"
    return _WORDS[letter]


def _not_well(storage: Document) -> Text:
    """Return how many cells of a storage are in other states than they should be."""
    text = Text()
    for letter, name in STATES.items():
        count = storage["states"][name]
        if letter != "U" and count:
            text.append(", " if text else "")
            text.append(f"{count} {_word(letter, storage['state'])}", style=_STYLES[letter])
    return text


def _table(*columns: str) -> Table:
    """Return an empty table in which nothing is cut off, and names stay in one line."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in _UNFOLDED)
    return table
