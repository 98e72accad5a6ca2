# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Computers, their partitions and their software releases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session, contains_eager

from slapos_wendelin.master import computers
from slapos_wendelin.master.checks import AVAILABLE, DESTROYED, check_name, shown
from slapos_wendelin.master.computer_fields import REMOVED
from slapos_wendelin.master.due import touch_software
from slapos_wendelin.master.errors import ConflictError, InvalidRequestError, UnknownError
from slapos_wendelin.master.models import GUID_PREFIX, Computer, Instance, Partition, Software

_GUID = re.compile(GUID_PREFIX + "([0-9]{1,18})")

#: The key of ``Session.info`` that says that a release will be asked for again.
_UNSETTLED = "wendelin.unsettled"

_SUPPLIED = select(Software.requested_state, Software.reported_state).where(
    Software.computer_id == bindparam("computer"), Software.url == bindparam("url")
)

_PARTITION = (
    select(Partition)
    .join(Computer)
    .where(
        Computer.reference == bindparam("computer"), Partition.reference == bindparam("partition")
    )
    .options(contains_eager(Partition.computer))
)


def computer(session: Session, reference: str) -> Computer:
    """Return a computer that has not been removed.

    :raises UnknownError: when there is none.
    :raises ConflictError: when it was removed: the slap library shows the text, which it does not
        of what is unknown.
    """
    found = computers.find_computer(session, reference)
    if found.state == REMOVED:
        raise ConflictError(
            f"computer {reference!r} was removed",
            f"an operator can bring it back with `slapos computer uncordon {reference}`",
        )
    return found


def partition(session: Session, computer_reference: str, reference: str) -> Partition:
    """Return a partition of a computer.

    :raises UnknownError: when there is none of that name.
    """
    found = session.scalar(_PARTITION, {"computer": computer_reference, "partition": reference})
    if found is None:
        raise UnknownError(
            f"computer {shown(computer_reference)} has no partition {shown(reference)}",
            "run `slapos node format` there",
        )
    return found


def count_alike(session: Session, host: Computer, partition_reference: str) -> int:
    """Return how many instances on a computer have the software type of the one in a partition."""
    own = (
        select(Instance.software_type)
        .join(Partition, Instance.partition_id == Partition.id)
        .where(Partition.computer_id == host.id, Partition.reference == partition_reference)
        .scalar_subquery()
    )
    alike = (
        select(func.count())
        .select_from(Instance)
        .join(Partition, Instance.partition_id == Partition.id)
        .where(Partition.computer_id == host.id, Instance.software_type == own)
    )
    return session.scalar(alike) or 0


def instance_in(session: Session, computer_reference: str, reference: str) -> Instance:
    """Return the instance in a partition.

    :raises UnknownError: when the partition does not exist or is free.
    """
    instance = partition(session, computer_reference, reference).instance
    if instance is None:
        raise UnknownError(f"partition {reference!r} of {computer_reference!r} holds no instance")
    return instance


def instance(session: Session, guid: str, gone: bool = False) -> Instance:
    """Return an instance by its guid.

    :param gone: whether one that has been destroyed counts too.
    :raises UnknownError: when there is none.
    """
    match = _GUID.fullmatch(guid)
    found = session.get(Instance, int(match[1])) if match else None
    if found is None or (found.destroyed_at is not None and not gone):
        raise UnknownError(
            f"there is no instance {shown(guid)}", "give the guid of one that exists"
        )
    return found


def load_configuration(session: Session, configuration: Mapping[str, Any]) -> Computer:
    """Take over what ``slapos node format`` measured, registering the computer when it is new.

    :raises InvalidRequestError: when the configuration is not what format sends, or as
        `put_partitions`.
    """
    name = check_name(configuration.get("reference"), "the computer's reference")
    found = put_partitions(session, name, _partitions_of(configuration, name))
    computers.put_computer(session, name, {"address": configuration.get("address") or ""})
    keep_capabilities(found, _capabilities(configuration))
    return found


def put_partitions(
    session: Session, name: str, partitions: Sequence[tuple[str, list[Any]]]
) -> Computer:
    """Give a computer exactly these partitions, registering it when it is new.

    A partition that is missing is forgotten when it is free, and kept, but not offered, while an
    instance is in it.

    :param partitions: the name and the addresses of each, pairs of interface and IP.
    :raises InvalidRequestError: when a partition is named twice.
    :raises ConflictError: when the computer was removed.
    """
    described: dict[str, list[Any]] = {}
    for reference, addresses in partitions:
        if check_name(reference, f"a partition of {name!r}") in described:
            raise InvalidRequestError(
                f"the configuration of {name!r} names partition {reference!r} twice",
                "correct the computer's XML file and run `slapos node format` again",
            )
        described[reference] = addresses
    computers.put_computer(session, name, {})
    found = computer(session, name)
    known = {each.reference: each for each in found.partitions}
    for reference, addresses in described.items():
        if reference not in known:
            found.partitions.append(Partition(reference=reference, addresses=addresses))
        else:
            known[reference].offered = True
            known[reference].addresses = addresses
    for reference in known.keys() - described.keys():
        known[reference].offered = False
        forget_if_unused(known[reference])
    session.flush()
    return found


def keep_capabilities(host: Computer, capabilities: Mapping[str, list[str]]) -> None:
    """Keep what single partitions of a computer can do besides, as its formatting says."""
    if host.measured.get("capabilities", {}) != capabilities:
        host.measured = {**host.measured, "capabilities": dict(capabilities)}


def forget_if_unused(place: Partition) -> None:
    """Remove a partition that is neither offered nor used."""
    if not place.offered and place.instance is None:
        place.computer.partitions.remove(place)


def supply(session: Session, host: Computer, url: str, state: str = AVAILABLE) -> Software | None:
    """Ask for a software release on a computer, or for its removal.

    :returns: None when the removal of something unknown was asked for.
    :raises ConflictError: when instances still use what is to be removed.
    """
    found = find_software(session, host, url)
    if state == DESTROYED:
        _check_unused(session, host, url)
        if found is None:
            return None
    if found is None:
        found = Software(computer=host, url=url, requested_state="")
        session.add(found)
    if found.requested_state != state or found.reported_state == "error":
        found.requested_state = state
        session.flush()
        touch_software(session, found)
    return found


def ensure_software(session: Session, host: Computer, url: str) -> None:
    """Ask for a software release on a computer, which mostly has it already."""
    known = session.connection().execute(_SUPPLIED, {"computer": host.id, "url": url}).first()
    if known is None or known.requested_state != AVAILABLE or known.reported_state == "error":
        session.info[_UNSETTLED] = known is not None
        supply(session, host, url)


def is_settled(session: Session) -> bool:
    """Say whether what the session did would change nothing if it were done again.

    A release that failed to build is asked for anew by each request that needs it.
    """
    return not session.info.get(_UNSETTLED, False)


def find_software(session: Session, host: Computer, url: str) -> Software | None:
    """Return a release on a computer, or None."""
    return session.scalar(
        select(Software).where(Software.computer_id == host.id, Software.url == url)
    )


def users_of(session: Session, host: Computer, url: str) -> Sequence[Instance]:
    """Return the instances on a computer that use a release and are to stay."""
    return session.scalars(
        select(Instance)
        .join(Partition)
        .where(
            Partition.computer_id == host.id,
            Instance.software_release == url,
            Instance.state != DESTROYED,
        )
    ).all()


def _check_unused(session: Session, host: Computer, url: str) -> None:
    """Refuse when an instance that is to stay uses the release."""
    users = users_of(session, host, url)
    if users:
        names = ", ".join(sorted(each.reference for each in users))
        raise ConflictError(
            f"{url} is in use on {host.reference} by {names}", "destroy or upgrade them first"
        )


def _partitions_of(configuration: Mapping[str, Any], name: str) -> list[tuple[str, list[Any]]]:
    """Return name and addresses of each partition in a configuration, pairs of interface and IP."""
    try:
        return [
            (
                each["reference"],
                [
                    [(each.get("tap") or {}).get("name") or each["reference"], str(address["addr"])]
                    for address in each["address_list"]
                ],
            )
            for each in configuration["partition_list"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidRequestError(
            f"the configuration of {name!r} is not what format sends: {error!r}",
            "send it with `slapos node format`",
        ) from error


def _capabilities(configuration: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what the partitions in a configuration can do, by partition."""
    return {
        each["reference"]: [str(capability) for capability in each["capability_list"]]
        for each in configuration["partition_list"]
        if isinstance(each.get("capability_list"), list) and each["capability_list"]
    }
