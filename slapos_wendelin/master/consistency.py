# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what stands in the database can be: for `slapos master check`.

Nothing here repairs. What a master writes is consistent, so a finding tells of a fault of the disk,
of a hand in the database, or of this program.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import JSON, Connection, Table, Text, func, select, text
from sqlalchemy import cast as sql_cast
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from slapos_wendelin.master.checks import DESTROYED, INSTANCE_STATES, SOFTWARE_STATES
from slapos_wendelin.master.due import LAST_NUMBER
from slapos_wendelin.master.models import (
    Base,
    Change,
    Computer,
    Instance,
    Partition,
    Property,
    Software,
)

_RESTORE = "put a backup back with `slapos master restore`"
_AGAIN = "send the request for it again: the master then sets it right"
_REPORT = "report this as a fault of the master, with its log"

#: The columns that hold JSON lists; the other ones of JSON hold objects.
_LISTS = frozenset({"addresses", "coordinates", "placement"})

#: The states that may stand in a column.
_KNOWN_STATES = {
    "requested_state": frozenset(INSTANCE_STATES),
    "state": frozenset(INSTANCE_STATES),
    "reported_state": frozenset({*INSTANCE_STATES, ""}),
}
_KNOWN_SOFTWARE_STATES = {
    "requested_state": frozenset(SOFTWARE_STATES),
    "reported_state": frozenset({"", "building", "available", "error"}),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that cannot be."""

    #: The name of the rule that is broken.
    rule: str
    #: What is wrong, and where.
    message: str
    #: What to do next.
    remedy: str


def check(session: Session) -> list[Finding]:
    """Return all that is wrong in one state of the database."""
    connection = session.connection()
    findings = _file_faults(connection)
    if findings:
        # With pages in disorder nothing else can be believed.
        return findings
    differences = _differences(connection)
    findings += [
        Finding("table", f"the tables are not those of this version: {each}", _RESTORE)
        for each in differences
    ]
    if any(each[0] in {"add_table", "add_column"} for each in differences):
        # Something is missing that is looked at below.
        return findings
    findings += [*_unreadable(connection), *_lost_references(connection)]
    if any(finding.rule == "value" for finding in findings):
        return findings
    cloud = _Cloud(connection)
    for rule in _RULES:
        findings += rule(cloud)
    return findings


class _Cloud:
    """The rows that rules look at, by their number."""

    def __init__(self, connection: Connection) -> None:
        self.instances = _rows(connection, Instance)
        self.partitions = _rows(connection, Partition)
        self.computers = _rows(connection, Computer)
        self.software = _rows(connection, Software)
        self.last: int | None = connection.scalar(
            select(Property.value).where(Property.name == LAST_NUMBER)
        )
        self.newest_change: int = connection.scalar(select(func.max(Change.number))) or 0
        before = func.lag(Change.number).over(order_by=Change.id)
        numbers = select(Change.id, Change.number, before.label("earlier")).subquery()
        self.disordered_changes = connection.scalars(
            select(numbers.c.id).where(numbers.c.earlier > numbers.c.number)
        ).all()

    def home(self, instance: Any) -> Any:
        """Return the computer on which an instance is, or None."""
        place = self.partitions.get(instance.partition_id)
        return None if place is None else self.computers.get(place.computer_id)


def _rows(connection: Connection, model: type[Base]) -> dict[int, Any]:
    """Return the rows of a table by their number."""
    table = cast("Table", model.__table__)
    return {row.id: row for row in connection.execute(select(table).order_by(table.c.id))}


def _file_faults(connection: Connection) -> list[Finding]:
    """Find pages that SQLite cannot read."""
    if connection.dialect.name != "sqlite":
        return []
    try:
        lines = connection.execute(text("PRAGMA integrity_check")).scalars().all()
    except DatabaseError as error:
        lines = [str(error.orig)]
    return [
        Finding("file", f"the file is damaged: {' '.join(line.split())}", _RESTORE)
        for line in lines
        if line != "ok"
    ]


def _differences(connection: Connection) -> list[Any]:
    """Return what makes tables, columns and indexes others than those of this version."""
    context = MigrationContext.configure(connection, opts={"compare_type": False})
    return list(compare_metadata(context, Base.metadata))


def _unreadable(connection: Connection) -> Iterator[Finding]:
    """Find values that are not the JSON that their column holds."""
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if not isinstance(column.type, JSON):
                continue
            kind = list if column.name in _LISTS else dict
            keys = list(table.primary_key)
            rows = connection.execute(select(*keys, sql_cast(column, Text).label("value")))
            for row in rows:
                if not _is_json(row.value, kind):
                    name = " ".join(str(value) for value in row[:-1])
                    yield Finding(
                        "value",
                        f"{table.name} {name}: {column.name} is {str(row.value)[:80]!r}",
                        _RESTORE,
                    )


def _is_json(value: str, kind: type) -> bool:
    """Say whether a text is JSON of a kind."""
    try:
        return isinstance(json.loads(value), kind)
    except (TypeError, ValueError):
        return False


def _lost_references(connection: Connection) -> Iterator[Finding]:
    """Find rows that refer to one that is not there."""
    for table in Base.metadata.sorted_tables:
        for key in table.foreign_keys:
            target = key.column.table.alias("target")
            lost = (
                select(table.c.id, key.parent)
                .outerjoin(target, target.c[key.column.name] == key.parent)
                .where(key.parent.is_not(None), target.c[key.column.name].is_(None))
            )
            for row, missing in connection.execute(lost):
                yield Finding(
                    "reference",
                    f"{table.name} {row}: {key.parent.name} is {missing}, which is no"
                    f" {key.column.table.name}",
                    _RESTORE,
                )


def _name(instance: Any) -> str:
    """Return an instance as findings name it."""
    return f"instance SOFTINST-{instance.id} ({instance.reference!r})"


def _wrong_states(cloud: _Cloud) -> Iterator[Finding]:
    """Find states that do not exist."""
    for rows, known, kind in (
        (cloud.instances, _KNOWN_STATES, "instance"),
        (cloud.software, _KNOWN_SOFTWARE_STATES, "software"),
    ):
        for row in rows.values():
            for column, states in known.items():
                value = getattr(row, column)
                if value not in states:
                    yield Finding("state", f"{kind} {row.id}: {column} is {value!r}", _RESTORE)


def _wrong_wanted_states(cloud: _Cloud) -> Iterator[Finding]:
    """Find instances that are not to be in the state that was asked for them and their tree."""
    for each in cloud.instances.values():
        requester = cloud.instances.get(each.requester_id)
        states = [each.requested_state, *([] if requester is None else [requester.state])]
        if each.destroyed_at is not None or not {*states, each.state} <= set(INSTANCE_STATES):
            continue
        severest = max(states, key=INSTANCE_STATES.index)
        if each.state != severest:
            yield Finding(
                "wanted state", f"{_name(each)} is to be {each.state}, not {severest}", _AGAIN
            )


def _wrong_trees(cloud: _Cloud) -> Iterator[Finding]:
    """Find instances that are in no tree, or in another one than what requested them."""
    for each in cloud.instances.values():
        if each.tree_id == 0:
            if each.requester_id is not None:
                yield Finding("tree", f"{_name(each)} is a root but was requested", _REPORT)
            continue
        root = cloud.instances.get(each.tree_id)
        if root is None or root.tree_id != 0:
            yield Finding(
                "tree", f"{_name(each)} is in the tree of {each.tree_id}, which is no root", _REPORT
            )
        requester = cloud.instances.get(each.requester_id)
        if requester is None:
            yield Finding("tree", f"{_name(each)} is no root but nothing requested it", _REPORT)
        elif (requester.tree_id or requester.id) != each.tree_id:
            yield Finding("tree", f"{_name(each)} was requested from another tree", _REPORT)


def _circles(cloud: _Cloud) -> Iterator[Finding]:
    """Find instances that requested themselves, by way of others."""
    good: set[int] = set()
    for each in cloud.instances.values():
        path: list[int] = []
        row = each
        while row is not None and row.id not in good:
            if row.id in path:
                yield Finding("circle", f"{_name(row)} was requested by what it requested", _REPORT)
                break
            path.append(row.id)
            row = cloud.instances.get(row.requester_id)
        good.update(path)


def _wrong_lives(cloud: _Cloud) -> Iterator[Finding]:
    """Find instances that are destroyed and hold their name, or are to stay and do not."""
    for each in cloud.instances.values():
        gone = each.state == DESTROYED
        if bool(each.live) == gone or (each.destroyed_at is not None and not gone):
            yield Finding(
                "life",
                f"{_name(each)} is to be {each.state}, but live is {each.live} and destroyed_at"
                f" is {each.destroyed_at}",
                _REPORT,
            )
    names = Counter(
        (each.tree_id, each.reference) for each in cloud.instances.values() if each.live
    )
    for (tree, reference), count in names.items():
        if count > 1:
            yield Finding(
                "name",
                f"{count} instances of tree {tree} are named {reference!r}",
                "destroy all but one by their guids",
            )


def _wrong_places(cloud: _Cloud) -> Iterator[Finding]:
    """Find instances that are nowhere, or where they cannot be."""
    for each in cloud.instances.values():
        placed, hosted = each.partition_id is not None, each.provider_id is not None
        if each.destroyed_at is not None:
            wrong = "is destroyed but has a place" if placed or hosted else ""
        elif each.shared:
            wrong = _wrong_provider(cloud, each) if hosted and not placed else "has no provider"
        elif hosted:
            wrong = "is not shared but has a provider"
        else:
            wrong = "" if placed else "has no partition"
        if wrong:
            yield Finding("place", f"{_name(each)} {wrong}", "destroy it and request it again")
    users = Counter(
        each.partition_id for each in cloud.instances.values() if each.partition_id is not None
    )
    for partition, count in users.items():
        if count > 1:
            yield Finding(
                "place",
                f"{count} instances are in {_place(cloud, partition)}",
                "destroy all but one of them and request those again",
            )


def _wrong_provider(cloud: _Cloud, instance: Any) -> str:
    """Return what is wrong with the provider of a shared instance."""
    provider = cloud.instances.get(instance.provider_id)
    if provider is not None and (provider.shared or provider.partition_id is None):
        return "is hosted by what has no partition"
    return ""


def _place(cloud: _Cloud, partition: int) -> str:
    """Return a partition as findings name it."""
    place = cloud.partitions.get(partition)
    if place is None:
        return f"partition {partition}"
    host = cloud.computers.get(place.computer_id)
    return f"{place.reference} of {'?' if host is None else host.reference}"


def _useless_partitions(cloud: _Cloud) -> Iterator[Finding]:
    """Find partitions that are kept for an instance that is not there."""
    used = {each.partition_id for each in cloud.instances.values()}
    for place in cloud.partitions.values():
        if not place.offered and place.id not in used:
            yield Finding(
                "partition",
                f"{_place(cloud, place.id)} is neither offered nor used",
                "run `slapos node format` there",
            )


def _missing_software(cloud: _Cloud) -> Iterator[Finding]:
    """Find instances whose release their computer was not asked to have."""
    supplied = {
        (each.computer_id, each.url)
        for each in cloud.software.values()
        if each.requested_state != DESTROYED
    }
    for each in cloud.instances.values():
        host = cloud.home(each)
        if host is None or each.state == DESTROYED:
            continue
        release = each.software_release
        if (host.id, release) not in supplied:
            yield Finding(
                "software",
                f"{_name(each)} uses {release}, which {host.reference} is not to have",
                f"slapos supply {release} {host.reference}",
            )


def _wrong_numbers(cloud: _Cloud) -> Iterator[Finding]:
    """Find numbers out of order: computers would miss work."""
    if cloud.last is None:
        yield Finding("number", "the row last_number of the table property is missing", _RESTORE)
        return
    for host in cloud.computers.values():
        limits = {
            "number": cloud.last,
            "revision": cloud.last,
            "fetched_number": host.number,
        }
        yield from _beyond(f"computer {host.reference!r}", host, limits)
    for each in cloud.instances.values():
        host = cloud.home(each)
        limits = {
            "number": cloud.last if host is None else host.number,
            "reported_number": cloud.last,
        }
        yield from _beyond(_name(each), each, limits)
    for each in cloud.software.values():
        host = cloud.computers.get(each.computer_id)
        if host is not None:
            limits = {"number": host.number}
            yield from _beyond(f"{each.url} on {host.reference}", each, limits)
    if cloud.newest_change > cloud.last:
        yield Finding(
            "number",
            f"history has number {cloud.newest_change}, the last is {cloud.last}",
            _RESTORE,
        )
    for row in cloud.disordered_changes:
        yield Finding("number", f"change {row} has a smaller number than the one before", _REPORT)


def _beyond(name: str, row: Any, limits: Mapping[str, int]) -> Iterable[Finding]:
    """Find the columns of a row that are beyond their limits."""
    for column, limit in limits.items():
        value = getattr(row, column)
        if value > limit:
            yield Finding(
                "number",
                f"{column} of {name} is {value}, which is beyond {limit}",
                "bang its computer with `slapos node bang` once the cause is found",
            )


_RULES: tuple[Callable[[_Cloud], Iterable[Finding]], ...] = (
    _wrong_states,
    _wrong_wanted_states,
    _wrong_trees,
    _circles,
    _wrong_lives,
    _wrong_places,
    _useless_partitions,
    _missing_software,
    _wrong_numbers,
)
