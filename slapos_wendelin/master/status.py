# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of everything as one JSON document: data centers, computers, releases, instances."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload

from slapos_wendelin.build_progress import fault_of
from slapos_wendelin.disk_space import with_remedy
from slapos_wendelin.master import views
from slapos_wendelin.master.computer_fields import REMOVED
from slapos_wendelin.master.models import BUILD, Computer, Instance, Partition, Product
from slapos_wendelin.master.presence import Presence

LOST = "lost"


def document(session: Session, presence: Presence, reference: str | None) -> dict[str, Any]:
    """Return the state of everything that is there, or of one instance tree and its computers.

    :param reference: a root by its reference, or any instance by its guid.
    :raises UnknownError: when there is no such instance.
    """
    hosts: Sequence[Computer] = session.scalars(
        select(Computer)
        .where(Computer.state != REMOVED)
        .order_by(Computer.reference)
        .options(selectinload(Computer.software))
    ).all()
    whole = reference is None
    trees = views.roots(session) if whole else [views.find_instance(session, reference)]
    instances = [views.instance_view(each) for each in trees]
    nodes = [node for each in instances for node in walk(each)]
    if not whole:
        named = {node["computer"] for node in nodes}
        hosts = [host for host in hosts if host.reference in named]
    shown = computers_view(session, presence, hosts)
    software = [release for computer in shown for release in computer["software"]]
    add_versions(session, software, "url")
    add_versions(session, nodes, "release_url")
    problems = [*_computer_problems(shown), *_software_problems(software), *_faults(nodes)]
    return {
        "time": views.timestamp(time.time()),
        "lost_after": presence.lost_after,
        "well": not problems,
        "problems": problems,
        "datacenters": _datacenters(shown, nodes),
        "computers": shown,
        "software": software,
        "instances": instances,
    }


def computers_view(
    session: Session, presence: Presence, hosts: Sequence[Computer]
) -> list[dict[str, Any]]:
    """Return computers with their use, which is counted at once for all."""
    usage = partition_usage(session, [host.id for host in hosts] if len(hosts) == 1 else None)
    return [_computer_view(host, presence, *usage.get(host.id, (0, 0))) for host in hosts]


def partition_usage(
    session: Session, computers: Sequence[int] | None = None
) -> dict[int, tuple[int, int]]:
    """Return how many partitions each computer offers, and how many of them are in use.

    :param computers: rows of computers; None for all.
    """
    query = (
        select(Partition.computer_id, func.count(Partition.id), func.count(Instance.id))
        .outerjoin(Instance, Instance.partition_id == Partition.id)
        .where(Partition.offered)
        .group_by(Partition.computer_id)
    )
    if computers is not None:
        query = query.where(Partition.computer_id.in_(computers))
    return {computer: (offered, used) for computer, offered, used in session.execute(query)}


def add_versions(session: Session, documents: Iterable[dict[str, Any]], key: str) -> None:
    """Put into documents the version of their releases.

    It is the one in the catalog, or for a release that is not there the name of its folder.

    :param key: where a document has the URL of its release.
    """
    catalog = {
        url: version
        for url, version in session.execute(select(Product.release_url, Product.version))
        if version
    }
    for each in documents:
        each["version"] = version_of(each[key], catalog)


def version_of(url: str, catalog: Mapping[str, str]) -> str:
    """Return the version of a release, or the name of the folder that its profile is in."""
    return catalog.get(url) or PurePosixPath(urlsplit(url).path).parent.name or url


def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the document of an instance and of all below it."""
    yield node
    for child in node["children"]:
        yield from walk(child)


def _computer_view(host: Computer, presence: Presence, offered: int, used: int) -> dict[str, Any]:
    """Return a computer."""
    measured = dict(host.measured)
    measured_at = measured.pop("measured_at", None)
    deaths = measured.pop("deaths", [])
    measured.pop(BUILD, None)  # a release tells of it
    degrees = dict(zip(("latitude", "longitude"), host.coordinates, strict=False))
    return {
        "reference": host.reference,
        "datacenter": host.datacenter,
        "region": host.region,
        "provider": host.provider,
        "network": host.network,
        "coordinates": degrees or None,
        "labels": host.labels,
        "address": host.address,
        "called_from": presence.callers(host.reference),
        "state": host.state,
        "lost": presence.is_lost(host),
        "partitions": offered,
        "partitions_used": used,
        "measured": measured,
        "measured_at": views.timestamp(measured_at),
        "deaths": [views.death_view(each) for each in deaths],
        "contacted_at": views.timestamp(presence.last(host)),
        "number": host.number,
        "software": [views.software_view(each) for each in host.software],
    }


def _datacenters(
    computers: Sequence[dict[str, Any]], nodes: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the data centers, each with what is in it, counted."""
    inside: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for computer in computers:
        inside[computer["datacenter"]].append(computer)
    instances = Counter(node["datacenter"] for node in nodes)
    faults = Counter(node["datacenter"] for node in nodes if not node["settled"])
    return [
        {
            "name": name,
            "regions": sorted({each["region"] for each in members if each["region"]}),
            "computers": [each["reference"] for each in members],
            "states": dict(Counter(LOST if each["lost"] else each["state"] for each in members)),
            "partitions": sum(each["partitions"] for each in members),
            "partitions_used": sum(each["partitions_used"] for each in members),
            "instances": instances[name],
            "instances_not_settled": faults[name],
        }
        for name, members in sorted(inside.items())
    ]


def _computer_problems(computers: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each computer that is lost, and for what is on it unknown."""
    for computer in computers:
        if computer["lost"]:
            yield f"computer {computer['reference']} is lost: it called {computer['contacted_at']}"
        for partition, left in computer["measured"].get("left", {}).items():
            yield (
                f"{partition} of {computer['reference']} holds the data of {left['instance']!r}"
                f" ({left['guid']}), of which this master does not know that it is there; to give"
                f" it up: slapos node wipe {partition} on that computer"
            )


def _software_problems(software: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each release that could not be built."""
    for release in software:
        if release["reported_state"] == "error":
            error = release["error"] or ""
            reason = with_remedy(fault_of(error), error)
            yield f"{release['url']} was not built on {release['computer']}: {reason}"


def _faults(nodes: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each instance that is not as it should be."""
    for node in nodes:
        if node["error"]:
            text = node["error"]["text"]
            reason = with_remedy(last_line(text), text)
            yield f"{node['reference']} ({node['guid']}) fails: {reason}"
        elif not node["settled"]:
            yield f"{node['reference']} ({node['guid']}) is not {node['state']} yet"


def last_line(text: str) -> str:
    """Return the last line of a text, which says most of an error."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
