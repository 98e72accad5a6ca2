# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the keeper of a cluster for something through the master, and wait for the answer."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.status import Status

from slapos_wendelin.errors import CommandError, ParameterError
from slapos_wendelin.master.client import Document, MasterClient, MasterUnreachableError
from slapos_wendelin.waiting import NotReadyError

#: Seconds between two looks at an operation: the first, and the longest.
_FIRST_INTERVAL, _LONGEST_INTERVAL = 0.1, 1.0

#: Seconds for which a master that is away is asked again.
_MASTER_PATIENCE = 120.0

#: Seconds before a wait is told of, and between two lines that differ in a time only.
_QUIET, _LINE_INTERVAL = 1.0, 30.0

_OPEN = ("waiting", "running")

#: How NEO names a node.
_NODE = re.compile(r"\b[SM][0-9]+\b")


class Nodes:
    """The nodes of a cluster, by what NEO and the master call them."""

    def __init__(self, cluster: str, nodes: list[Document]) -> None:
        self.cluster = cluster
        self.nodes = sorted(nodes, key=_order)
        self._by_id = {each["id"]: each for each in nodes}

    @property
    def storages(self) -> list[Document]:
        """The storages, in the order of their names."""
        return [each for each in self.nodes if each["type"] == "STORAGE"]

    def find(self, number: str) -> Document:
        """Return a node by NEO's name; one that is not known has that only."""
        unknown = {"id": number, "name": "", "computer": "", "datacenter": "", "state": "UNKNOWN"}
        return self._by_id.get(number, unknown)

    def resolve(self, names: list[str]) -> list[str]:
        """Return what NEO calls storages.

        :param names: those of their instances, or NEO's own.
        :raises ParameterError: when the cluster has no such storage.
        """
        found = []
        for name in names:
            ids = [each["id"] for each in self.storages if name in (each["name"], each["id"])]
            if not ids:
                known = ", ".join(each["name"] or each["id"] for each in self.storages)
                raise ParameterError(
                    f"{self.cluster} has no storage {name!r}", f"its storages are {known or 'none'}"
                )
            found += ids
        return found

    def in_words(self, text: str) -> str:
        """Return a text in which nodes that have instances have the names of these too."""

        def named(match: re.Match[str]) -> str:
            name = self.find(match[0])["name"]
            return f"{name} ({match[0]})" if name else match[0]

        return _NODE.sub(named, text)


class Progress:
    """What is told on standard error while something goes on: a changing line, or several."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._status: Status | None = None
        self._told = ""
        self._told_at = 0.0
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def tell(self, text: str) -> None:
        """Tell how it goes; what is over at once is not told of."""
        now = time.monotonic()
        if now - self._began < _QUIET or text == self._told:
            return
        if self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)
        elif re.sub("[0-9]+ s", "", text) == re.sub("[0-9]+ s", "", self._told) and (
            now - self._told_at < _LINE_INTERVAL
        ):
            return
        else:
            self._console.print(f"{now - self._began:5.0f} s  {text}")
        self._told, self._told_at = text, now


def look(master: MasterClient, cluster: str, kind: str = "state", **arguments: Any) -> Document:
    """Return what a look at a cluster shows.

    :raises CommandError: when the keeper does not answer, or NEO cannot say.
    """
    asked = master.look_at(cluster, kind, arguments)
    return finished(wait(master, cluster, asked, None))["result"]


def nodes_of(master: MasterClient, cluster: str) -> Nodes:
    """Return the nodes of a cluster."""
    return Nodes(cluster, look(master, cluster)["nodes"])


def wait(
    master: MasterClient,
    cluster: str,
    operation: Document,
    seconds: float | None,
    words: Callable[[str], str] = str,
) -> Document:
    """Return an operation when it is over, and tell how it goes until then.

    :param seconds: how long to wait; None for as long as it takes.
    :param words: what makes of NEO's names what people know.
    :raises NotReadyError: when it takes longer.
    """
    number, interval = operation["operation"], _FIRST_INTERVAL
    began = time.monotonic()
    with Progress() as progress:
        while operation["state"] in _OPEN:
            if seconds is not None and time.monotonic() - began >= seconds:
                raise NotReadyError(
                    f"{operation['kind']} is not over after {seconds:g} s:"
                    f" {words(progress_of(operation))}",
                    f"it goes on; `slapos cluster neo follow {cluster} {number}` waits for it",
                )
            time.sleep(interval)
            interval = min(1.5 * interval, _LONGEST_INTERVAL)
            operation = _ask_again(master, cluster, number, progress)
            if operation["state"] in _OPEN:
                progress.tell(words(progress_of(operation)))
    return operation


def finished(operation: Document, words: Callable[[str], str] = str) -> Document:
    """Return an operation that was done.

    :raises CommandError: when it was not, with the reason.
    """
    if operation["state"] == "done":
        return operation
    if operation["state"] == "cancelled":
        raise CommandError(f"somebody has ended operation {operation['operation']} before its time")
    raise CommandError(words(operation["error"]), words(operation["remedy"]))


def progress_of(operation: Document) -> str:
    """Say how far an operation has come."""
    told = operation["progress"]
    phase = told.get("phase", "")
    if operation["state"] == "waiting":
        return "waiting for the keeper of the cluster"
    if "copying" in told:
        done = told["most"] - told["copying"]
        return f"copying: {done} of {told['most']} cells are done"
    if "seconds" in told:
        return f"{phase} for {told['seconds']} s"
    return phase or operation["state"]


def _ask_again(master: MasterClient, cluster: str, number: int, progress: Progress) -> Document:
    """Return how an operation stands; a master that is started anew is waited for."""
    deadline = time.monotonic() + _MASTER_PATIENCE
    while True:
        try:
            return master.operation(cluster, number)
        except MasterUnreachableError as error:
            if time.monotonic() > deadline:
                raise
            progress.tell(f"{error.message}; asking again")
        time.sleep(_LONGEST_INTERVAL)


def say_it_goes_on(cluster: str, operation: Document) -> None:
    """Tell whoever does not wait any more how to come back."""
    number = operation["operation"]
    print(
        f"Operation {number} goes on: `slapos cluster neo follow {cluster} {number}` waits for it,"
        f" `slapos cluster neo cancel {cluster} {number}` ends it.",
        file=sys.stderr,
    )


def _order(node: Document) -> tuple[Any, ...]:
    """Return where a node stands among others: numbers in names count as numbers."""
    name = node.get("name") or node["id"]
    parts = [int(part) if part.isdigit() else part for part in re.split("([0-9]+)", name)]
    return node["type"], not node.get("name"), [str(type(each)) for each in parts], parts
