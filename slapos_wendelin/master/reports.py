# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What computers report of their instances and software releases, and what follows from it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from slapos_wendelin.master import registry, shared
from slapos_wendelin.master.checks import AVAILABLE, BUILDING, DESTROYED
from slapos_wendelin.master.due import touch_instance
from slapos_wendelin.master.endings import end_instance
from slapos_wendelin.master.errors import ConflictError
from slapos_wendelin.master.models import BUILD, Computer, Instance, Partition

#: How much of an error's text is kept, in characters; its end says most.
_ERROR_LIMIT = 20_000


def report_state(session: Session, instance: Instance, state: str) -> None:
    """Keep that an instance is in a state and in order; tell its requester when that is new."""
    _keep_state(session, instance, state)
    instance.error = ""
    instance.error_at = None
    place = shared.place_of(instance)
    if place is not None:
        instance.reported_number = place.computer.fetched_number
    shared.follow_provider(session, instance)


def report_error(instance: Instance, text: str) -> None:
    """Keep an instance's error."""
    instance.error = _kept(text) or "no text was reported"
    instance.error_at = time.time()


def report_destroyed(session: Session, place: Partition) -> None:
    """Free the partition whose instance its computer has destroyed.

    A free partition is left as it is, so that a report may come twice.

    :raises ConflictError: when the instance is to stay.
    """
    instance = place.instance
    if instance is None:
        return
    if instance.state != DESTROYED:
        raise ConflictError(
            f"{instance.reference!r} in {place.reference} of {place.computer.reference}"
            f" is to be {instance.state}",
            "destroy it with `slapos request --state destroyed` first",
        )
    report_state(session, instance, DESTROYED)
    instance.connection = {}
    instance.partition = None
    end_instance(session, instance)
    session.refresh(place)
    registry.forget_if_unused(place)


def set_connection(session: Session, instance: Instance, connection: dict[str, str]) -> None:
    """Keep what an instance publishes; make its requester due when that is new.

    What is published for a shared instance also says that it is in order again.
    """
    if instance.shared:
        instance.error = ""
        instance.error_at = None
    if instance.connection == connection:
        return
    instance.connection = connection
    _tell_requester(session, instance)


def bang_tree(session: Session, instance: Instance) -> None:
    """Make every instance of a tree due."""
    for each in placed_instances(session, instance.root_id):
        touch_instance(session, each)


def placed_instances(session: Session, root: int) -> Sequence[Instance]:
    """Return the instances of a tree that have a partition.

    :param root: the row of its root.
    """
    return session.scalars(
        select(Instance).where(
            or_(Instance.id == root, Instance.tree_id == root), Instance.partition_id.is_not(None)
        )
    ).all()


def bang_computer(session: Session, host: Computer) -> None:
    """Make every instance on a computer due."""
    for each in session.scalars(
        select(Instance).join(Partition).where(Partition.computer_id == host.id)
    ):
        touch_instance(session, each)


def report_software(
    session: Session, host: Computer, url: str, state: str, error: str = ""
) -> bool:
    """Keep the state of a software release on a computer.

    Instances wait for a release that failed to build: when it is available at last they become due.

    :returns: False when the release is not asked for on that computer, and nothing was kept.
    """
    software = registry.find_software(session, host, url)
    if software is None:
        return False
    if state == DESTROYED and software.requested_state == DESTROYED:
        session.delete(software)
        return True
    failed_before = bool(software.error)
    _forget_progress(host)
    software.reported_state = state
    software.reported_at = time.time()
    if state != BUILDING:
        software.error = _kept(error)
    if state == AVAILABLE and failed_before:
        for instance in registry.users_of(session, host, url):
            touch_instance(session, instance)
    return True


def report_progress(session: Session, host: Computer, build: Mapping[str, Any]) -> bool:
    """Keep where a computer is with the build of a release.

    :param build: what `check_build` returned.
    :returns: False when the computer does not build that release, and nothing was kept.
    """
    software = registry.find_software(session, host, build["url"])
    if software is None or software.reported_state != BUILDING:
        return False
    # Of how a build goes on there is no history, and nobody waits for it.
    host.measured = {**host.measured, BUILD: dict(build)}
    return True


def _forget_progress(host: Computer) -> None:
    """Forget where a computer was with a build that has ended, or begins anew."""
    if BUILD in host.measured:
        host.measured = {name: value for name, value in host.measured.items() if name != BUILD}


def _kept(text: str) -> str:
    """Return of a reported text what a database can keep."""
    clean = text.replace("\0", "?").encode(errors="replace").decode()
    return clean.strip()[-_ERROR_LIMIT:]


def _keep_state(session: Session, instance: Instance, state: str) -> None:
    """Keep a reported state and tell the requester of a new one."""
    instance.reported_at = time.time()
    if instance.reported_state != state:
        instance.reported_state = state
        _tell_requester(session, instance)


def _tell_requester(session: Session, instance: Instance) -> None:
    """Make the partition of the instance's requester due."""
    if instance.requester is not None:
        touch_instance(session, instance.requester)
