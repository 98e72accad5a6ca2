# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents that the slap library reads, made from the database's rows."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, TypeVar

from slapos.slap.slap import Computer as SlapComputer
from slapos.slap.slap import ComputerPartition, SoftwareInstance, SoftwareRelease
from sqlalchemy import select
from sqlalchemy.orm import object_session, selectinload

from slapos_wendelin.build_progress import fault_of
from slapos_wendelin.master.checks import DESTROYED, STARTED
from slapos_wendelin.master.models import Computer, Instance, Partition, Software
from slapos_wendelin.master.shared import instances_of, place_of, timestamp_text

_Document = TypeVar("_Document")

#: What XML cannot hold: a build's log is full of terminal colours.
_NOT_FOR_XML = re.compile(r"[^\t\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")

_IN_ORDER = "#access Instance correctly {state}"


def computer_document(host: Computer) -> SlapComputer:
    """Return a computer with its software releases and all its partitions."""
    _kept = _load_whole(host)
    return _with(
        SlapComputer(host.reference),
        _software_release_list=[
            _release(each.url, host.reference, each.requested_state) for each in host.software
        ],
        _computer_partition_list=[partition_document(each) for each in host.partitions],
    )


def _load_whole(host: Computer) -> list[object]:
    """Load all that a computer's document tells in a few statements, however large it is.

    A session forgets what nobody holds, so the caller holds what is returned until it is done.
    """
    session = object_session(host)
    if session is None:
        return []
    instances = (
        selectinload(Computer.partitions)
        .joinedload(Partition.instance)
        .selectinload(Instance.shared_instances)
    )
    trees = select(Instance.tree_id).join(Partition).where(Partition.computer_id == host.id)
    whole = select(Computer).where(Computer.id == host.id)
    return [
        session.scalars(whole.options(selectinload(Computer.software), instances)).one(),
        *session.scalars(select(Instance).where(Instance.id.in_(trees))),
    ]


def partition_document(place: Partition) -> ComputerPartition:
    """Return a partition as slapgrid processes it.

    A free one is "destroyed" without a software release, which slapgrid skips. The access status is
    left out while an instance is not in order: slapgrid then reports at each pass, so that the
    error's text is the latest.
    """
    host = place.computer.reference
    instance = place.instance
    if instance is None:
        return _with(
            ComputerPartition(host, place.reference),
            _instance_guid=None,
            _need_modification=0,
            _requested_state=DESTROYED,
            _software_release_document=None,
            _parameter_dict={},
            _connection_dict={},
        )
    document = _with(
        ComputerPartition(host, place.reference),
        _instance_guid=instance.guid,
        _need_modification=1,
        _requested_state=instance.state,
        _software_release_document=_release(instance.software_release, host),
        _parameter_dict=_parameters(instance, place),
        _connection_dict=dict(instance.connection),
        _filter_dict={key: _flat(value) for key, value in instance.sla.items()},
    )
    if instance.reported_state == STARTED and not instance.error:
        _with(document, _access_status=_IN_ORDER.format(state=STARTED))
    return document


def instance_document(instance: Instance) -> SoftwareInstance:
    """Return an instance as its requester sees it."""
    place = place_of(instance)
    return SoftwareInstance(
        _instance_guid=instance.guid,
        _requested_state=instance.state,
        _access_status=access_status(instance),
        _connection_dict=dict(instance.connection),
        _parameter_dict=dict(instance.parameters)
        if place is None
        else _parameters(instance, place),
        slap_computer_id="" if place is None else place.computer.reference,
        slap_computer_partition_id="" if place is None else place.reference,
        slap_software_release_url=instance.software_release,
        slap_software_type=instance.software_type,
        ip_list=[] if place is None else [tuple(pair) for pair in place.addresses],
    )


def instance_fields(instance: Instance) -> dict[str, Any]:
    """Return an instance as the JSON-RPC methods show it."""
    place = place_of(instance)
    return {
        "title": instance.reference,
        "instance_guid": instance.guid,
        "software_release_uri": instance.software_release,
        "software_type": instance.software_type,
        "state": instance.state,
        "connection_parameters": instance.connection,
        "parameters": instance.parameters,
        "shared": instance.shared,
        "root_instance_title": root_title(instance),
        "ip_list": [] if place is None else place.addresses,
        "full_ip_list": [],
        "sla_parameters": instance.sla,
        "computer_guid": "" if place is None else place.computer.reference,
        "compute_partition_id": "" if place is None else place.reference,
        "processing_timestamp": instance.number,
        "access_status_message": access_status(instance) if has_reported(instance) else "",
    }


def computer_status(host: Computer, contacted_at: float | None) -> dict[str, Any]:
    """Return when a computer was last in contact, as SlapOS masters give it."""
    if contacted_at is None:
        return {"user": host.reference, "text": "#error no data found"}
    when = datetime.fromtimestamp(contacted_at, UTC).isoformat(timespec="seconds")
    text = f"#access Computer was last in contact at {when}"
    return {"user": host.reference, "text": text, "created_at": when}


def absent_document() -> SoftwareInstance:
    """Return what a requester sees of an instance to destroy that never was."""
    return SoftwareInstance(
        _instance_guid=None,
        _requested_state=DESTROYED,
        _access_status="#error no data found",
        _connection_dict={},
        _parameter_dict={},
        slap_computer_id="",
        slap_computer_partition_id="",
    )


def has_reported(instance: Instance) -> bool:
    """Say whether anything was reported of an instance yet."""
    return bool(instance.error or instance.reported_state)


def access_status(instance: Instance) -> str:
    """Return the last report as SlapOS masters give it: #access or #error, and a text."""
    if instance.error:
        last_line = instance.error.rstrip().splitlines()[-1]
        return f"#error {_NOT_FOR_XML.sub('?', last_line)}"
    if instance.reported_state:
        return _IN_ORDER.format(state=instance.reported_state)
    return f"#error no data found for {instance.guid}"


def software_status(software: Software) -> str:
    """Return the last report of a software release as SlapOS masters give it."""
    if software.error:
        return f"#error {_NOT_FOR_XML.sub('?', fault_of(software.error))}"
    if software.reported_state:
        return f"#access Software Release is {software.reported_state}"
    return "#error no data found"


def _parameters(instance: Instance, place: Partition) -> dict[str, Any]:
    """Return the instance's parameters with those that the slap protocol adds."""
    root = root_title(instance)
    return {
        **instance.parameters,
        "instance_title": instance.reference,
        "root_instance_title": root,
        "root_instance_short_title": root,
        "slap_software_type": instance.software_type,
        "slap_software_release_url": instance.software_release,
        "slap_computer_id": place.computer.reference,
        "slap_computer_partition_id": place.reference,
        "slave_instance_list": instances_of(instance),
        "ip_list": [tuple(pair) for pair in place.addresses],
        "full_ip_list": [],
        "timestamp": timestamp_text(instance.number),
    }


def root_title(instance: Instance) -> str:
    """Return the name of the root of an instance's tree."""
    session = object_session(instance)
    if instance.is_root or session is None:
        return instance.reference
    return session.get_one(Instance, instance.tree_id).reference


def _release(url: str, computer: str, state: str | None = None) -> SoftwareRelease:
    """Return a software release of a computer."""
    document = SoftwareRelease(url, computer)
    return document if state is None else _with(document, _requested_state=state)


def _with(document: _Document, **attributes: object) -> _Document:
    """Set the attributes that the slap library's own documents carry, and return the document."""
    vars(document).update(attributes)
    return document


def _flat(value: object) -> str:
    """Return an SLA value as text."""
    return " ".join(value) if isinstance(value, list | tuple) else str(value)
