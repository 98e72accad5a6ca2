# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators say of computers, and what computers measure of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos_wendelin.master.access import revoke
from slapos_wendelin.master.checks import DESTROYED, check_name, shown
from slapos_wendelin.master.computer_fields import FIELDS, REMOVED, SIZES
from slapos_wendelin.master.endings import end_instance
from slapos_wendelin.master.errors import ConflictError, UnknownError
from slapos_wendelin.master.models import Computer, Instance, Partition

#: How old a kept measurement may be before an equal size is written again, in seconds: computers
#: measure themselves often, and each write is a transaction.
_MEASUREMENT_AGE = 240.0

#: How many instances a refusal names.
_NAMED_INSTANCES = 12


def find_if_any(session: Session, reference: str) -> Computer | None:
    """Return a computer, also one that was removed, or None."""
    return session.scalar(select(Computer).where(Computer.reference == reference))


def find_computer(session: Session, reference: str) -> Computer:
    """Return a computer, also one that was removed.

    :raises UnknownError: when it was never registered.
    """
    found = find_if_any(session, reference)
    if found is None:
        raise UnknownError(
            f"computer {shown(reference)} is not registered",
            "see `slapos computer list`, or run `slapos node format` there",
        )
    return found


def put_computer(session: Session, reference: str, values: Mapping[str, Any]) -> Computer:
    """Register a computer, or change what is known of it.

    :param values: what to change, by the names of `FIELDS`; what is left out stays as it is.
    :raises InvalidRequestError: for a value that cannot be.
    """
    changes = {name: FIELDS[name](name, value) for name, value in values.items()}
    found = find_if_any(session, reference)
    if found is None:
        found = Computer(reference=check_name(reference, "the computer's reference"))
        session.add(found)
        session.flush()
    label_changes = changes.pop("label_changes", {})
    for name, value in changes.items():
        if value is not None:
            setattr(found, name, value)
    if label_changes:
        labels = {**found.labels, **label_changes}
        found.labels = {name: text for name, text in labels.items() if text is not None}
    session.flush()
    return found


def remove(session: Session, host: Computer, is_lost: bool) -> None:
    """Take a computer out of the cloud: its row stays, its certificates end.

    Instances that a lost computer was to destroy count as gone: it will never tell.

    :raises ConflictError: while instances are on it.
    """
    on_it = instances_on(session, host)
    staying = [each for each in on_it if each.state != DESTROYED]
    if staying:
        raise ConflictError(
            f"computer {host.reference!r} still has {_named(staying)}",
            f"move them off with `slapos computer drain {host.reference}`, or destroy them",
        )
    if on_it and not is_lost:
        raise ConflictError(
            f"computer {host.reference!r} has yet to wipe the partitions of {_named(on_it)}",
            "wait until it has reported, or switch it off and wait until it counts as lost",
        )
    for each in on_it:
        each.partition = None
        end_instance(session, each)
    host.state = REMOVED
    revoke(session, "computer", host.reference, "the computer was removed")
    session.flush()


def instances_on(session: Session, host: Computer) -> list[Instance]:
    """Return the instances in the partitions of a computer, by partition."""
    return list(
        session.scalars(
            select(Instance)
            .join(Partition, Instance.partition_id == Partition.id)
            .where(Partition.computer_id == host.id)
            .order_by(Partition.id)
        )
    )


def keep_measurement(host: Computer, values: Mapping[str, Any], now: float) -> bool:
    """Keep what a computer measured, if it is news or the last measurement is old.

    :param values: what `check_measurement` returned.
    :returns: whether it was kept.
    """
    if not is_measurement_news(host, values, now):
        return False
    # What is not told any more is not left any more.
    known = {name: value for name, value in host.measured.items() if name != "left"}
    host.measured = {**known, **values, "measured_at": now}
    return True


def keep_usage(host: Computer, usage: Mapping[str, Any]) -> None:
    """Keep the averages that a computer reported, unless those of a later day are known."""
    known = host.measured.get("usage", {})
    if usage and usage != known and usage["date"] >= known.get("date", ""):
        host.measured = {**host.measured, "usage": dict(usage)}


def is_measurement_news(host: Computer, values: Mapping[str, Any], now: float) -> bool:
    """Return whether a measurement is worth a transaction."""
    known = host.measured
    return (
        any(known.get(name) != values[name] for name in SIZES)
        or known.get("deaths", []) != values.get("deaths", [])
        or known.get("left") != values.get("left")
        or now - known.get("measured_at", 0.0) > _MEASUREMENT_AGE
    )


def _named(instances: list[Instance]) -> str:
    """Return the number and the names of instances."""
    names = [f"{each.reference} ({each.guid})" for each in instances[:_NAMED_INSTANCES]]
    left_out = len(instances) - len(names)
    more = f" and {left_out} more" if left_out else ""
    count = f"{len(instances)} instance{'s' if len(instances) > 1 else ''}"
    return f"{count}: {', '.join(names)}{more}"
