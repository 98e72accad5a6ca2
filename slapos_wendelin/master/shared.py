# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared instances: those that another instance, their provider, hosts beside its own work.

A shared instance has no partition. Its provider finds it, with its parameters, among its own
parameters, and publishes and reports for it. Whatever changes of a shared instance makes the
provider due.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from slapos_wendelin.master import fleet_cache
from slapos_wendelin.master.checks import DESTROYED, STARTED, shown
from slapos_wendelin.master.due import touch_instance
from slapos_wendelin.master.endings import end_instance
from slapos_wendelin.master.errors import ConflictError, NoCapacityError, UnknownError
from slapos_wendelin.master.models import Instance, Partition
from slapos_wendelin.master.placement import Fleet, ServiceLevel, unmet

#: The SLA key that names the provider itself.
_PROVIDER_KEY = "instance_guid"

#: How many instances an error names.
_NAMED = 12


def place_of(instance: Instance) -> Partition | None:
    """Return the partition in which an instance runs: its own, or that of its provider."""
    host = instance.provider if instance.shared else instance
    return None if host is None else host.partition


def service_level(sla: Mapping[str, object]) -> ServiceLevel:
    """Return what the SLA of a shared instance asks of its provider's place.

    :raises InvalidRequestError: for a key that does not exist or a value that is none.
    """
    return ServiceLevel.parse({key: value for key, value in sla.items() if key != _PROVIDER_KEY})


def choose_provider(
    session: Session, release: str, software_type: str, sla: Mapping[str, object]
) -> tuple[Instance, list[dict[str, Any]]]:
    """Return the provider for a new shared instance, and why each one was or was not chosen.

    It is of the same release and software type, where the SLA allows, and of those the one with the
    fewest shared instances.

    :raises InvalidRequestError: for an unknown SLA key.
    :raises NoCapacityError: when there is none.
    """
    level = service_level(sla)
    providers = _providers(session, release, software_type)
    fleet = fleet_cache.fleet_of(session)
    verdicts: list[dict[str, Any]] = []
    for provider, count in providers:
        reason = _refusal(provider, fleet, level, sla.get(_PROVIDER_KEY))
        verdicts.append(
            {
                "computer": _computer(provider),
                "chosen": not reason,
                "score": [] if reason else [count],
                "explanation": f"{provider.guid}: {reason or f'hosts {count} shared instances'}",
            }
        )
        if not reason:
            return provider, verdicts
    raise _no_provider(release, software_type, verdicts)


def _providers(session: Session, release: str, software_type: str) -> list[tuple[Instance, int]]:
    """Return what could host a shared instance, with how many it hosts, the fewest first."""
    hosted = aliased(Instance)
    count = select(func.count(hosted.id)).where(hosted.provider_id == Instance.id).scalar_subquery()
    rows = session.execute(
        select(Instance, count)
        .where(
            Instance.software_release == release,
            Instance.software_type == software_type,
            Instance.shared.is_(False),
            Instance.live.is_(True),
            Instance.state != DESTROYED,
        )
        .order_by(count, Instance.id)
    )
    return [(provider, number) for provider, number in rows]


def _refusal(provider: Instance, fleet: Fleet, level: ServiceLevel, guid: object) -> str:
    """Return why a provider is not where the SLA allows; nothing when it is."""
    if guid and provider.guid != guid:
        return f"asked for {guid}"
    home = provider.partition
    known = None if home is None else fleet.get(home.computer.reference)
    if home is None or known is None:
        return "has no place"
    return " and ".join(unmet(known, home.reference, (), level))


def _no_provider(
    release: str, software_type: str, verdicts: Sequence[Mapping[str, Any]]
) -> NoCapacityError:
    """Return the error that says why nothing can host the shared instance."""
    reasons = [f"{each['computer']}, {each['explanation']}" for each in verdicts[:_NAMED]]
    return NoCapacityError(
        f"no instance of {release} with software type {software_type!r} can host it: "
        + ("; ".join(reasons) or "there is none"),
        "request such an instance first, or change the SLA",
    )


def instances_of(provider: Instance) -> list[dict[str, Any]]:
    """Return the shared instances that shall run, as the provider's parameters show them."""
    return [
        {
            **each.parameters,
            "slave_title": each.reference,
            "slap_software_type": each.software_type,
            "slave_reference": each.guid,
            "timestamp": timestamp_text(each.number),
        }
        for each in provider.shared_instances
        if each.state == STARTED
    ]


def timestamp_text(number: int) -> str:
    """Return a number as slapgrid's timestamp: seconds, exact to the microsecond."""
    return "{}.{:06d}".format(*divmod(number, 1_000_000))


def hosted_instance(provider: Instance, reference: str) -> Instance:
    """Return the shared instance of that guid that the provider hosts.

    :raises UnknownError: when it hosts none of that guid.
    """
    for each in provider.shared_instances:
        if each.guid == reference:
            return each
    raise UnknownError(
        f"{provider.reference!r} hosts no shared instance {shown(reference)}",
        "use a slave_reference of its parameter slave_instance_list",
    )


def follow_provider(session: Session, provider: Instance) -> None:
    """Keep for the shared instances what their provider has reported for itself.

    Those that changed after the provider read its parameters wait for its next report.
    """
    for each in provider.shared_instances:
        if each.number > provider.reported_number:
            continue
        each.reported_at = time.time()
        each.reported_number = provider.reported_number
        if each.reported_state != each.state:
            each.reported_state = each.state
            if each.requester is not None:
                touch_instance(session, each.requester)


def leave_provider(session: Session, instance: Instance) -> None:
    """Take a shared instance that was to be destroyed from its provider; it is gone then.

    A provider that its requester gave up meanwhile is looked at again.
    """
    provider = instance.provider
    instance.reported_state = DESTROYED
    instance.connection = {}
    instance.provider = None
    end_instance(session, instance)
    if provider is not None and provider.requester is not None and not provider.shared_instances:
        touch_instance(session, provider.requester)


def check_unused(instance: Instance) -> None:
    """Refuse to destroy what hosts shared instances of others.

    :raises ConflictError: when an instance of the tree below hosts one from elsewhere.
    """
    users = users_from_elsewhere(instance)
    if not users:
        return
    names = [f"{each.reference} ({each.guid})" for each in users[:_NAMED]]
    if len(users) > _NAMED:
        names.append(f"and {len(users) - _NAMED} more")
    raise ConflictError(
        f"{instance.reference!r} hosts shared instances: {', '.join(names)}",
        "destroy those first",
    )


def users_from_elsewhere(instance: Instance) -> list[Instance]:
    """Return the shared instances that a tree hosts and that are not of it."""
    tree: dict[int, Instance] = {}
    queue = [instance]
    while queue:
        each = queue.pop()
        tree[each.id] = each
        queue += each.children
    hosted = [shared for each in tree.values() for shared in each.shared_instances]
    return sorted((each for each in hosted if each.id not in tree), key=lambda each: each.id)


def _computer(provider: Instance) -> str:
    """Return the computer of a provider."""
    return "" if provider.partition is None else provider.partition.computer.reference
