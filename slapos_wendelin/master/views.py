# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON documents of the /v1 API, made from the database's rows."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, attributes, joinedload

from slapos_wendelin.master.checks import BUILDING, shown
from slapos_wendelin.master.errors import UnknownError
from slapos_wendelin.master.models import (
    BUILD,
    GUID_PREFIX,
    Computer,
    Instance,
    Partition,
    Product,
    Software,
)
from slapos_wendelin.master.shared import place_of


def find_instance(session: Session, reference: str) -> Instance:
    """Return an instance by its guid, or a live root by its reference.

    :raises UnknownError: when there is none.
    """
    match = re.fullmatch(GUID_PREFIX + "([0-9]{1,18})", reference)
    if match is not None:
        instance = session.get(Instance, int(match[1]))
    else:
        instance = session.scalar(
            select(Instance).where(
                Instance.tree_id == 0, Instance.reference == reference, Instance.live.is_(True)
            )
        )
    if instance is None:
        raise UnknownError(
            f"there is no instance {shown(reference)}",
            "see GET /v1/instances or `slapos service list`",
        )
    return instance


def roots(session: Session) -> list[Instance]:
    """Return the roots of the trees of which something is still there, by reference.

    What is below them is loaded with few queries for all.
    """
    present = session.scalars(
        select(Instance)
        .where(Instance.destroyed_at.is_(None))
        .order_by(Instance.id)
        .options(joinedload(Instance.partition).joinedload(Partition.computer))
    ).all()
    below: dict[int | None, list[Instance]] = {}
    for each in present:
        below.setdefault(each.requester_id, []).append(each)
    found = {each.id: each for each in present if each.is_root}
    for row in {each.root_id for each in present} - found.keys():
        found[row] = session.get_one(Instance, row)
    for each in {*present, *found.values()}:
        attributes.set_committed_value(each, "children", below.get(each.id, []))
    return sorted(found.values(), key=lambda each: (each.reference, each.id))


def instance_view(instance: Instance) -> dict[str, Any]:
    """Return an instance with the instances below it that are still there."""
    place = place_of(instance)
    return {
        "reference": instance.reference,
        "guid": instance.guid,
        "shared": instance.shared,
        "provider": None if instance.provider is None else instance.provider.guid,
        "software_type": instance.software_type,
        "release_url": instance.software_release,
        "requested_state": instance.requested_state,
        "state": instance.state,
        "reported_state": instance.reported_state,
        "reported_at": timestamp(instance.reported_at),
        "settled": instance.is_settled,
        "error": (
            {"text": instance.error, "time": timestamp(instance.error_at)}
            if instance.error
            else None
        ),
        "deaths": [] if place is None or instance.shared else _deaths(instance, place),
        "computer": None if place is None else place.computer.reference,
        "datacenter": None if place is None else place.computer.datacenter,
        "partition": None if place is None else place.reference,
        "addresses": [] if place is None else [address for _, address in place.addresses],
        "parameters": decoded(instance.parameters),
        "connection": decoded(instance.connection),
        "sla": instance.sla,
        "placement": instance.placement,
        "number": instance.number,
        "created_at": timestamp(instance.created_at),
        "destroyed_at": timestamp(instance.destroyed_at),
        "children": [
            instance_view(child) for child in instance.children if child.destroyed_at is None
        ],
    }


def place_view(instance: Instance) -> dict[str, Any]:
    """Return an instance in few words: what it is, where, and how it is."""
    place = place_of(instance)
    return {
        "reference": instance.reference,
        "guid": instance.guid,
        "root": f"{GUID_PREFIX}{instance.root_id}",
        "computer": None if place is None else place.computer.reference,
        "partition": None if place is None else place.reference,
        "state": instance.state,
        "reported_state": instance.reported_state,
        "settled": instance.is_settled,
    }


def software_view(software: Software) -> dict[str, Any]:
    """Return a software release of a computer."""
    return {
        "computer": software.computer.reference,
        "url": software.url,
        "requested_state": software.requested_state,
        "reported_state": software.reported_state,
        "reported_at": timestamp(software.reported_at),
        "progress": _progress(software),
        "error": software.error or None,
        "number": software.number,
    }


def _progress(software: Software) -> dict[str, Any] | None:
    """Return where the build of a release is; None when it is not being built, or nobody knows."""
    build = software.computer.measured.get(BUILD)
    if software.reported_state != BUILDING or not build or build["url"] != software.url:
        return None
    return {"stage": build["stage"], "percent": build["percent"]}


def death_view(death: dict[str, Any]) -> dict[str, Any]:
    """Return how often a program of a computer has died, and when it did last."""
    return {
        "partition": death["partition"],
        "program": death["program"],
        "count": death["count"],
        "last_at": timestamp(death["last"]),
    }


def _deaths(instance: Instance, place: Partition) -> list[dict[str, Any]]:
    """Return how often programs of an instance have died; none of whoever was there before."""
    return [
        death_view(each)
        for each in place.computer.measured.get("deaths", [])
        if each["partition"] == place.reference and each["last"] >= instance.created_at
    ]


def product_view(product: Product) -> dict[str, Any]:
    """Return an entry of the catalog."""
    return {
        "name": product.name,
        "release_url": product.release_url,
        "software_type": product.software_type,
        "version": product.version,
        "defaults": product.defaults,
    }


def due_view(host: Computer, after: int) -> dict[str, Any]:
    """Return the work of a computer that is newer than a number."""
    return {
        "number": max(host.number, after),
        "software": [software_view(each) for each in host.software if each.number > after],
        "instances": [
            {
                "partition": place.reference,
                "guid": place.instance.guid,
                "reference": place.instance.reference,
                "state": place.instance.state,
                "number": place.instance.number,
            }
            for place in host.partitions
            if place.instance is not None and place.instance.number > after
        ],
    }


def decoded(values: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as people read them: a JSON text that is alone under ``_`` as values."""
    if list(values) == ["_"]:
        try:
            inner = json.loads(values["_"])
        except (ValueError, RecursionError):
            return values
        if isinstance(inner, dict):
            return inner
    return values


def timestamp(seconds: float | None) -> str | None:
    """Return a time in ISO 8601, UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
