# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The /v1 endpoints by which operators ask something of a cluster's NEO, and its keeper answers."""

from __future__ import annotations

import re
import time
from typing import Any

from flask import Blueprint, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos_wendelin.master import operation_reports, operations, registry, views
from slapos_wendelin.master.arguments import json_body, number
from slapos_wendelin.master.context import context
from slapos_wendelin.master.due import operations_of
from slapos_wendelin.master.errors import ConflictError, InvalidRequestError
from slapos_wendelin.master.models import Instance, Operation
from slapos_wendelin.master.shared import place_of

blueprint = Blueprint("operations", __name__, url_prefix="/v1")

#: What changes nothing, and what changes something.
LOOKS = ("state", "tweak")
OPERATIONS = ("tweak", "balance", "pack")

#: The longest that a keeper may wait, in seconds, and the part of the places for those who wait
#: that keepers leave to computers.
_LONGEST_WAIT = 60.0
_SHARE = 0.5

#: How far the clock of whoever asks may be ahead, in seconds.
_AHEAD = 60.0

#: The most storages that can be left out, and how NEO names one.
_MOST_STORAGES = 1000
_STORAGE = re.compile("S[0-9]{1,7}")


@blueprint.post("/clusters/<path:reference>/looks")
def post_look(reference: str) -> dict[str, Any]:
    """Ask for something that changes nothing."""
    return _ask(reference, LOOKS, is_look=True)


@blueprint.post("/clusters/<path:reference>/operations")
def post_operation(reference: str) -> dict[str, Any]:
    """Ask for something that changes the cluster."""
    return _ask(reference, OPERATIONS, is_look=False)


@blueprint.get("/clusters/<path:reference>/operations")
def get_operations(reference: str) -> list[dict[str, Any]]:
    """Give what was asked of a cluster lately, without what came of it."""
    with context().reading() as session:
        found = operations.recent(session, _root(session, reference))
        return [{**_view(each), "result": {}} for each in found]


@blueprint.get("/clusters/<path:reference>/operations/<int:operation>")
def get_operation(reference: str, operation: int) -> dict[str, Any]:
    """Give how an operation stands and what came of it."""
    with context().reading() as session:
        root = _root(session, reference)
        shown = _view(operations.find(session, root, operation))
        _name_nodes(session, root, shown["result"])
        return shown


@blueprint.delete("/clusters/<path:reference>/operations/<int:operation>")
def delete_operation(reference: str, operation: int) -> dict[str, Any]:
    """End an operation before its time."""
    with context().writing() as session:
        found = operations.find(session, _root(session, reference), operation)
        operations.cancel(session, found)
        session.flush()
        return _view(found)


@blueprint.get("/cluster/operations")
def get_offered() -> dict[str, Any]:
    """Give a keeper what it has to do, at once or when something is new after a number."""
    board = context().database.board
    after = number("after", int, 0)
    timeout = min(max(number("timeout", float, 0.0), 0.0), _LONGEST_WAIT)
    place = [request.args.get(key, "") for key in ("computer_id", "computer_partition_id")]
    with context().reading() as session:
        tree = _keeper(session, *place).root_id
        newest = operations.newest_number(session, tree)
    newest = board.wait(operations_of(tree), newest, after, timeout, share=_SHARE)
    keeper = request.args.get("keeper", "")
    with context().reading() as session:
        # What gave it its right may have gone while it waited.
        tree = _keeper(session, *place).root_id
        found = operations.offered(session, tree, keeper)
        return {"number": newest, "operations": [_view(each) for each in found]}


@blueprint.put("/cluster/operations/<int:operation>")
def put_report(operation: int) -> dict[str, Any]:
    """Keep what a keeper tells of an operation."""
    body = json_body(
        *("computer_id", "computer_partition_id", "keeper", "take", "state"),
        *("progress", "result", "error", "remedy"),
    )
    report = operation_reports.read_report(body)
    place = (str(body.get(key, "")) for key in ("computer_id", "computer_partition_id"))
    with context().writing() as session:
        instance = _keeper(session, *place)
        root = operations.root_of(session, instance)
        found = operations.find(session, root, operation)
        operation_reports.keep(found, report)
        session.flush()
        return {**_view(found), "result": {}}


def _ask(reference: str, kinds: tuple[str, ...], *, is_look: bool) -> dict[str, Any]:
    """Ask the keeper of a cluster for what the body says."""
    body = json_body("kind", "arguments")
    kind = body.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise InvalidRequestError(f"kind is {kind!r:.80}", f"use one of {', '.join(kinds)}")
    arguments = _arguments(kind, body.get("arguments", {}))
    with context().writing() as session:
        root = _root(session, reference)
        if root.live is None:
            raise ConflictError(
                f"{root.reference!r} is being destroyed", "name a cluster that is there"
            )
        asked = operations.ask(session, root, kind, arguments, is_look=is_look)
        session.flush()
        return _view(asked)


def _arguments(kind: str, given: Any) -> dict[str, Any]:
    """Return the arguments of an operation as the keeper expects them.

    :raises InvalidRequestError: when they are not those of its kind.
    """
    known = {"state": (), "tweak": ("without",), "balance": ("without",), "pack": ("before",)}[kind]
    if not isinstance(given, dict) or set(given) - set(known):
        raise InvalidRequestError(
            f"the arguments of {kind} are {given!r:.80}",
            f"send an object with {' and '.join(known) or 'nothing'} in it",
        )
    if kind == "pack":
        return {"before": _time_to_pack(given.get("before", 0))}
    if "without" in known:
        return {"without": _storages(given.get("without", []))}
    return {}


def _storages(given: Any) -> list[str]:
    """Return names of storages, in order."""
    if (
        not isinstance(given, list)
        or len(given) > _MOST_STORAGES
        or not all(isinstance(each, str) and _STORAGE.fullmatch(each) for each in given)
    ):
        raise InvalidRequestError(f"without is {given!r:.80}", 'send a list such as ["S3"]')
    return sorted(set(given))


def _time_to_pack(given: Any) -> float:
    """Return the time up to which a cluster shall be packed; now, by the clock here, for None."""
    if given is None:
        return time.time()
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not is_number or not 0 < given <= time.time() + _AHEAD:
        raise InvalidRequestError(
            f"before is {given!r:.80}",
            "send a time that is not in the future, in seconds since the epoch, or null for now",
        )
    return float(given)


def _root(session: Session, reference: str) -> Instance:
    """Return the root of the cluster that a reference names."""
    return operations.root_of(session, views.find_instance(session, reference))


def _keeper(session: Session, computer: str, partition: str) -> Instance:
    """Return the instance beside which the keeper runs that calls."""
    instance = registry.instance_in(session, computer, partition)
    operations.check_keeper(instance)
    return instance


def _view(operation: Operation) -> dict[str, Any]:
    """Return an operation as it stands."""
    end = operations.fate(operation, time.time())
    return {
        "operation": operation.id,
        "kind": operation.kind,
        "look": operation.is_look,
        "arguments": operation.arguments,
        "by": operation.created_by,
        "created_at": views.timestamp(operation.created_at),
        "taken_at": views.timestamp(operation.taken_at),
        "ended_at": views.timestamp(operation.ended_at),
        "keeper": operation.keeper,
        "state": end.state,
        "progress": operation.progress,
        "result": dict(operation.result),
        "error": end.error,
        "remedy": end.remedy,
    }


def _name_nodes(session: Session, root: Instance, result: dict[str, Any]) -> None:
    """Add to each node of a result the instance that has its address, and where that is."""
    nodes = result.get("nodes")
    if not isinstance(nodes, list):
        return
    result["nodes"] = [dict(each) for each in nodes if isinstance(each, dict)]
    tree = select(Instance).where(
        (Instance.id == root.id) | (Instance.tree_id == root.id), Instance.live.is_(True)
    )
    known = {}
    for each in session.scalars(tree):
        place = place_of(each)
        address = views.decoded(each.connection).get("address")
        if place is not None and isinstance(address, str):
            known[address] = {
                "name": each.reference,
                "computer": place.computer.reference,
                "datacenter": place.computer.datacenter,
            }
    nobody = {"name": "", "computer": "", "datacenter": ""}
    for node in result["nodes"]:
        node.update(known.get(node.get("address"), nobody))
