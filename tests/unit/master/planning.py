# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database with three computers, and what plans and requests do to it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos_wendelin.master import plans
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.errors import MasterError, NoCapacityError
from slapos_wendelin.master.fleet_cache import FleetCache, keep_in
from slapos_wendelin.master.history import TRACKED
from slapos_wendelin.master.models import (
    Computer,
    Instance,
    Partition,
    Plan,
    Product,
    Software,
)
from slapos_wendelin.master.plans import ChildRequest, PlannedRequest
from slapos_wendelin.master.requests import (
    InstanceRequest,
    collect_children,
    find_instance_of,
    request_instance,
)
from slapos_wendelin.master.views import decoded

COMPUTERS = {"paris-1": "paris", "paris-2": "paris", "tokyo-1": "tokyo"}


def make_template(path: Path) -> None:
    """Make the file of a database with three computers, to be copied."""
    with closing(Database(path)) as database, database.writing() as session:
        for name, datacenter in COMPUTERS.items():
            host = Computer(reference=name, datacenter=datacenter)
            host.partitions = [Partition(reference=f"slappart{index}") for index in range(2)]
            session.add(host)


@contextmanager
def copy_of(template: Path) -> Iterator[Database]:
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(shutil.copy(template, folder))
        with closing(Database(copied)) as database:
            yield database


#: The fleet that placement searches, kept between transactions as a master process keeps it.
_FLEETS: WeakKeyDictionary[Database, FleetCache] = WeakKeyDictionary()


@contextmanager
def writing(database: Database, who: str = "operator/alice") -> Iterator[Session]:
    with database.writing(who) as session:
        keep_in(session, _FLEETS.setdefault(database, FleetCache()))
        yield session


@contextmanager
def trying(database: Database) -> Iterator[Session]:
    with database.trying() as session:
        keep_in(session, _FLEETS.setdefault(database, FleetCache()))
        yield session


def picture(database: Database) -> dict[tuple[str, str], dict[str, Any]]:
    """Return every tracked value of the database in the words of the API."""
    with database.reading() as session:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for table in (Computer, Partition, Software, Product):
            for row in session.scalars(select(table)):
                name = {
                    Computer: lambda row: row.reference,
                    Partition: lambda row: f"{row.computer.reference}/{row.reference}",
                    Software: lambda row: f"{row.computer.reference} {row.url}",
                    Product: lambda row: row.name,
                }[table](row)
                found[table.__tablename__, name] = {
                    column: getattr(row, column) for column in TRACKED[table]
                }
        for row in session.scalars(select(Instance)):
            found["instance", row.guid] = {
                "reference": row.reference,
                "requester": name_of(row.requester),
                "shared": row.shared,
                "provider": name_of(row.provider),
                "release_url": row.software_release,
                "software_type": row.software_type,
                "parameters": decoded(row.parameters),
                "sla": row.sla,
                "connection": row.connection,
                "requested_state": row.requested_state,
                "state": row.state,
                "reported_state": row.reported_state,
                "error": row.error,
                "place": row.partition
                and f"{row.partition.computer.reference}/{row.partition.reference}",
                "is_gone": row.destroyed_at is not None,
            }
        return found


def name_of(instance: Instance | None) -> str | None:
    if instance is None:
        return None
    return (
        f"{name_of(instance.requester)}/{instance.reference}"
        if instance.requester
        else (instance.reference)
    )


def real_difference(before: dict, after: dict) -> dict[tuple[str, str], tuple[str, dict, dict]]:
    """Return action, old and new values of what differs between two pictures."""
    found = {}
    for key in {*before, *after}:
        old, new = before.get(key), after.get(key)
        if old is None:
            found[key] = ("added", {}, new)
        elif new is None:
            found[key] = ("removed", old, {})
        elif old != new:
            columns = [column for column in old if old[column] != new[column]]
            found[key] = (
                "changed",
                {column: old[column] for column in columns},
                {column: new[column] for column in columns},
            )
    return found


def told(effects: list[dict]) -> dict[tuple[str, str], tuple[str, dict, dict]]:
    return {
        (each["kind"], each["subject"]): (
            each["action"],
            timeless(each["before"]),
            timeless(each["after"]),
        )
        for each in effects
    }


def timeless(values: dict[str, Any]) -> dict[str, Any]:
    """Return values with whether an instance is gone instead of when that was."""
    known = {key: value for key, value in values.items() if key != "destroyed_at"}
    if "destroyed_at" in values:
        known["is_gone"] = values["destroyed_at"] is not None
    return known


def explain(database: Database, planned: PlannedRequest) -> dict[str, Any]:
    with trying(database) as session:
        return plans.explain(session, planned)


def carry_out(database: Database, planned: PlannedRequest) -> None:
    with writing(database) as session:
        request_instance(session, planned.wanted, None)


def refusal_of(
    function: Callable[[Database, PlannedRequest], object],
    database: Database,
    planned: PlannedRequest,
) -> str:
    try:
        function(database, planned)
    except MasterError as error:
        return error.message
    return ""


def keep(database: Database, planned: PlannedRequest, effects: dict[str, Any]) -> int:
    with writing(database) as session:
        plan = Plan(
            created_at=1.0,
            created_by="operator/alice",
            # As the database gives it back later.
            request=json.loads(json.dumps(asdict(planned))),
            effects=json.loads(json.dumps(effects)),
        )
        session.add(plan)
        session.flush()
        return plan.id


def apply(database: Database, number: int) -> None:
    with writing(database) as session:
        plans.apply(session, plans.find(session, number))


def plan(database: Database, planned: PlannedRequest) -> int:
    return keep(database, planned, explain(database, planned))


def wanted(reference: str = "cluster", **values: Any) -> InstanceRequest:
    return InstanceRequest(reference=reference, **{"software_release": "r1", **values})


def play_children(
    database: Database, reference: str, children: tuple[ChildRequest, ...]
) -> list[str]:
    """Send the requests that the recipes in the root's partition send; return what is refused."""
    refused = []
    names = []
    with database.reading() as session:
        root = find_instance_of(session, reference, None)
    for child in children:
        names.append(child.reference)
        try:
            with writing(database, "partition/root") as session:
                request_instance(
                    session,
                    InstanceRequest(
                        reference=child.reference,
                        software_release=root.software_release,
                        software_type=child.software_type,
                        state="stopped" if root.state == "stopped" else "started",
                        parameters={"_": json.dumps(child.parameters, sort_keys=True)},
                        sla=child.sla,
                    ),
                    session.get_one(Instance, root.id),
                )
        except NoCapacityError as error:
            refused.append(error.message)
    with writing(database, "partition/root") as session:
        collect_children(session, session.get_one(Instance, root.id), names)
    return refused


def requested(root: Instance) -> dict[str, Any]:
    return {
        key: getattr(root, key)
        for key in (
            *("software_release", "software_type", "parameters", "sla", "requested_state"),
            "shared",
        )
    }
