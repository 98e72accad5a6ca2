# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The /v1 endpoints of computers: the registry, their work, their measurements, the status."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, request
from sqlalchemy import select

from slapos_wendelin.master import computers, moves, registry, reports, status, views
from slapos_wendelin.master.arguments import json_body, number
from slapos_wendelin.master.checks import check_name
from slapos_wendelin.master.computer_fields import (
    FIELDS,
    SIZES,
    USES,
    check_build,
    check_measurement,
)
from slapos_wendelin.master.context import context
from slapos_wendelin.master.models import Computer

blueprint = Blueprint("registry", __name__, url_prefix="/v1")

#: The longest that a request may wait, in seconds.
_LONGEST_WAIT = 300.0


@blueprint.put("/computers/<path:reference>")
def put_computer(reference: str) -> dict[str, Any]:
    """Register a computer, or change what is known of it."""
    body = json_body(*FIELDS)
    with context().writing() as session:
        host = computers.put_computer(session, reference, body)
        return status.computers_view(session, context().presence, [host])[0]


@blueprint.get("/computers")
def get_computers() -> list[dict[str, Any]]:
    """Give every computer, those that were removed too."""
    with context().reading() as session:
        hosts = session.scalars(select(Computer).order_by(Computer.reference)).all()
        return status.computers_view(session, context().presence, hosts)


@blueprint.get("/computers/<path:reference>")
def get_computer(reference: str) -> dict[str, Any]:
    """Give one computer with the instances on it."""
    with context().reading() as session:
        host = computers.find_computer(session, reference)
        (shown,) = status.computers_view(session, context().presence, [host])
        on_it = computers.instances_on(session, host)
        return {**shown, "instances": [views.place_view(each) for each in on_it]}


@blueprint.delete("/computers/<path:reference>")
def delete_computer(reference: str) -> dict[str, Any]:
    """Take a computer out of the cloud."""
    with context().writing() as session:
        host = computers.find_computer(session, reference)
        computers.remove(session, host, context().presence.is_lost(host))
        return status.computers_view(session, context().presence, [host])[0]


@blueprint.put("/computers/<path:reference>/measurement")
def put_measurement(reference: str) -> dict[str, Any]:
    """Keep what a computer measured of itself, and that it called."""
    values = check_measurement(json_body(*SIZES, *USES, "load", "deaths", "left"))
    now = time.time()
    with context().reading() as session:
        host = registry.computer(session, reference)
    context().presence.seen(host, request.remote_addr or "")
    if not computers.is_measurement_news(host, values, now):
        return {"kept": False}
    with context().writing() as session:
        host = registry.computer(session, reference)
        return {"kept": computers.keep_measurement(host, values, now)}


@blueprint.put("/computers/<path:reference>/build")
def put_build(reference: str) -> dict[str, Any]:
    """Keep where a computer is with the build of a release, and that it called."""
    build = check_build(json_body("url", "stage", "percent"))
    with context().writing() as session:
        host = registry.computer(session, reference)
        context().presence.seen_in_transaction(host, request.remote_addr or "")
        return {"kept": reports.report_progress(session, host, build)}


@blueprint.get("/computers/<path:reference>/due")
def get_due(reference: str) -> dict[str, Any]:
    """Give a computer its work newer than a number, waiting for it if need be.

    Nothing is held while it waits but a thread: no connection to the database, no lock. It may wait
    half as long as it takes to count as lost.
    """
    presence, database = context().presence, context().database
    after = number("after", int, 0)
    longest = min(_LONGEST_WAIT, presence.lost_after / 2)
    timeout = min(max(number("timeout", float, 0.0), 0.0), longest)
    with database.reading() as session:
        host = registry.computer(session, reference)
    if context().is_call_of_computer():
        presence.seen(host, request.remote_addr or "")
    if database.board.wait(reference, host.number, after, timeout) <= after:
        return {"number": after, "software": [], "instances": []}
    with database.reading() as session:
        return views.due_view(registry.computer(session, reference), after)


@blueprint.get("/location")
def get_location() -> dict[str, Any]:
    """Say where a partition is: its computer, and that one's data center and region.

    And how many instances of its software type there are on that computer, ``alike``.
    """
    with context().reading() as session:
        host = registry.computer(session, request.args.get("computer_id", ""))
        name = request.args.get("computer_partition_id", "")
        return {
            "computer": host.reference,
            "datacenter": host.datacenter,
            "region": host.region,
            "alike": registry.count_alike(session, host, name),
        }


@blueprint.post("/instances/<path:reference>/move")
def move_instance(reference: str) -> dict[str, Any]:
    """Place an instance anew."""
    computer = json_body("computer").get("computer")
    target = None if computer is None else check_name(computer, "computer")
    with context().writing() as session:
        instance = views.find_instance(session, reference)
        left = views.place_view(instance)
        moves.move(session, instance, target)
        return {"from": left, "to": views.place_view(instance), "placement": instance.placement}


@blueprint.get("/status")
def get_status() -> dict[str, Any]:
    """Give everything, or one instance tree: data centers, computers, releases, instances."""
    with context().reading() as session:
        return status.document(session, context().presence, request.args.get("instance"))
