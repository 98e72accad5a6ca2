# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follow an instance tree until every node is as requested and all its promises pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from slapos_wendelin.build_progress import described
from slapos_wendelin.errors import WendelinError

Document = dict[str, Any]

#: Seconds between two looks.
_INTERVAL = 0.5

#: How much of a node's error is told, in lines; its end says most.
_LINES = 10


class NotReadyError(WendelinError):
    """The nodes are not well in time, though none of them reports an error."""

    exit_status = 2


class FailedNodeError(WendelinError):
    """A node reports an error, or its software could not be built."""


@dataclass(frozen=True, slots=True)
class Node:
    """An instance of a tree as it stands."""

    name: str
    computer: str
    partition: str
    state: str
    #: What it is not well by; empty when it is well.
    fault: str = ""
    #: The whole text of its error.
    error: str = ""

    @property
    def place(self) -> str:
        """The computer and the partition that it is in."""
        return f"{self.computer}/{self.partition}" if self.computer else "nowhere"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait."""

    #: In all, in seconds; None for as long as something changes.
    seconds: float | None = None
    #: Without any change, in seconds.
    unchanged: float = 600.0


def follow(
    ask: Callable[[], Document],
    software: Callable[[], list[Document]],
    patience: Patience,
    release_url: str = "",
) -> Iterator[list[Node]]:
    """Yield the nodes of a tree now and then, until all are well.

    :param ask: gives the root as the /v1 API does.
    :param software: gives the copies of the tree's release that computers have.
    :param release_url: the release that every node must have, where there is one.
    :raises FailedNodeError: at once when the software of a node could not be built; when time is
        over and a node reports an error.
    :raises NotReadyError: when time is over.
    """
    began = changed = time.monotonic()
    builds_before = {each["computer"]: each["reported_at"] for each in software()}
    last: list[Node] = []
    while True:
        root = ask()
        builds = {each["computer"]: each for each in software()}
        nodes = [_node(each, release_url, builds) for each in tree(root)]
        yield nodes
        if not any(node.fault for node in nodes):
            return
        _refuse_failed_build(nodes, builds, builds_before)
        now = time.monotonic()
        if nodes != last:
            last, changed = nodes, now
        is_over = patience.seconds is not None and now - began >= patience.seconds
        if is_over or now - changed >= patience.unchanged:
            raise _too_late(nodes, now - (began if is_over else changed), is_over)
        time.sleep(_INTERVAL)


def tree(root: Document) -> Iterator[Document]:
    """Yield an instance and all below it."""
    yield root
    for child in root["children"]:
        yield from tree(child)


def last_lines(text: str, count: int = _LINES) -> list[str]:
    """Return the last lines of a text that say something."""
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


def _node(instance: Document, release_url: str, builds: dict[str, Document]) -> Node:
    """Return an instance of the /v1 API as a node, with what it is not well by."""
    error = str(instance["error"]["text"]) if instance["error"] else ""
    build = builds.get(instance["computer"] or "", {})
    if build.get("url") != instance["release_url"]:
        build = {}
    fault = ""
    if error:
        fault = (last_lines(error, 1) or ["reports an error"])[0].strip()
    elif release_url and instance["release_url"] != release_url:
        fault = "waits for the new release"
    elif not instance["settled"]:
        fault = f"is not {instance['state']} as requested yet"
        is_built = build.get("reported_state", "available") == "available"
        if not is_built and instance["state"] != "destroyed":
            fault = described("its software is being built", build.get("progress"))
    return Node(
        name=instance["reference"],
        computer=instance["computer"] or "",
        partition=instance["partition"] or "",
        state=instance["reported_state"] or "not started",
        fault=fault,
        error=error,
    )


def _refuse_failed_build(
    nodes: list[Node], builds: dict[str, Document], before: dict[str, str | None]
) -> None:
    """Raise FailedNodeError for software that failed to build since the waiting began."""
    for node in nodes:
        build = builds.get(node.computer)
        if not node.fault or build is None or build["reported_state"] != "error":
            continue
        if build["reported_at"] == before.get(node.computer):
            continue
        lines = "\n  ".join(last_lines(build["error"] or "no reason given"))
        raise FailedNodeError(
            f"{node.computer} could not build the release for {node.name}:\n  {lines}",
            f"mend the cause (see the log of slapgrid on {node.computer}), then request again",
        )


def _too_late(nodes: list[Node], seconds: float, is_over: bool) -> WendelinError:
    """Return the error that says who is not well when time is over."""
    late = [node for node in nodes if node.fault]
    when = f"after {seconds:.0f} s" if is_over else f"after {seconds:.0f} s without a change"
    told = "".join(f"\n  {node.name} ({node.place}): {node.fault}" for node in late)
    message = f"{len(late)} of {len(nodes)} nodes are not well {when}:{told}"
    failed = next((node for node in late if node.error), None)
    if failed is None:
        return NotReadyError(
            message, "the request stays; `slapos cluster status` shows how it goes on"
        )
    lines = "".join(f"\n    {line}" for line in last_lines(failed.error))
    return FailedNodeError(
        f"{message}\n  the last lines of {failed.name}:{lines}",
        f"mend the cause on {failed.computer or 'its computer'}, where it is tried again by itself;"
        " the request stays",
    )
