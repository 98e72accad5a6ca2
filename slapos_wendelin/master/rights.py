# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may call what: one table, and what it does not name is refused.

An operator may call every endpoint of the table. Of the others each may call what its rule says,
and a computer or a partition only for itself: every value of the request that names a computer, a
partition or an instance has to be its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from flask import g, request
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from slapos_wendelin.master.context import (
    ANONYMOUS,
    COMPUTER,
    OPERATOR,
    PARTITION,
    VIEWER,
    Caller,
    context,
)
from slapos_wendelin.master.errors import ForbiddenError
from slapos_wendelin.master.marshalling import load_dictionary
from slapos_wendelin.master.models import GUID_PREFIX, Computer, Instance, Partition
from slapos_wendelin.master.requesting import requesting_partition
from slapos_wendelin.master.shared import place_of

#: Says whether the request is about the caller itself.
Check = Callable[[Session, Caller], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call an endpoint beside operators."""

    computer: Check | None = None
    partition: Check | None = None
    viewer: bool = False
    anonymous: bool = False


def _anything(_session: Session, _caller: Caller) -> bool:
    """Say that the request is about nobody in particular."""
    return True


def _values(name: str) -> list[str]:
    """Return every value of that name in the query and in the form, whichever is read later."""
    return [*request.args.getlist(name), *request.form.getlist(name)]


def _document() -> dict[str, object]:
    """Return the JSON document of the body, empty when there is none."""
    try:
        document = request.get_json()
    except (BadRequest, UnsupportedMediaType, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _own_computer(name: str = "computer_id") -> Check:
    """Return the check that a field names the computer that calls."""

    def check(_session: Session, caller: Caller) -> bool:
        return set(_values(name)) == {caller.name}

    return check


def _own_path(_session: Session, caller: Caller) -> bool:
    """Check that the path names the computer that calls."""
    return (request.view_args or {}).get("reference") == caller.name


def _own_xml(_session: Session, caller: Caller) -> bool:
    """Check that the configuration in the form is that of the computer that calls."""
    described = {str(load_dictionary(each, "xml").get("reference")) for each in _values("xml")}
    return described == {caller.name}


def _own_guid_of_computer(session: Session, caller: Caller) -> bool:
    """Check that the document names an instance on the computer that calls."""
    instance = _instance(session, _document().get("instance_guid"))
    place = None if instance is None else place_of(instance)
    return place is not None and place.computer.reference == caller.name


def _own_document(_session: Session, caller: Caller) -> bool:
    """Check that the document names the computer that calls."""
    return _document().get("computer_guid") == caller.name


def _own_partition(
    computer: str = "computer_id", partition_name: str = "computer_partition_id"
) -> Check:
    """Return the check that two fields name the partition of the instance that calls."""

    def check(session: Session, caller: Caller) -> bool:
        computers, partitions = set(_values(computer)), set(_values(partition_name))
        if len(computers) != 1 or len(partitions) != 1:
            return False
        return _guid_in(session, computers.pop(), partitions.pop()) == caller.name

    return check


def _own_request(session: Session, caller: Caller) -> bool:
    """Check that an instance requests from its own partition."""
    place = requesting_partition()
    return place is not None and _guid_in(session, *place) == caller.name


def _own_partition_document(session: Session, caller: Caller) -> bool:
    """Check that the document names the partition of the instance that calls."""
    computer, place = (_document().get(key) for key in ("computer_guid", "compute_partition_id"))
    return _guid_in(session, str(computer), str(place)) == caller.name


def _own_place_document(session: Session, caller: Caller) -> bool:
    """Check that the document of our own API names the partition of the instance that calls."""
    computer, place = (_document().get(key) for key in ("computer_id", "computer_partition_id"))
    return _guid_in(session, str(computer), str(place)) == caller.name


def _own_guid(session: Session, caller: Caller) -> bool:
    """Check that the document names the instance that calls, or a shared one that it hosts."""
    instance = _instance(session, _document().get("instance_guid"))
    if instance is None:
        return False
    provider = instance.provider if instance.shared else instance
    return provider is not None and provider.guid == caller.name


def _guid_in(session: Session, computer: str, place: str) -> str | None:
    """Return the guid of the instance in a partition."""
    number = session.scalar(
        select(Instance.id)
        .join(Partition, Instance.partition_id == Partition.id)
        .join(Computer)
        .where(Computer.reference == computer, Partition.reference == place)
    )
    return None if number is None else f"{GUID_PREFIX}{number}"


def _instance(session: Session, guid: object) -> Instance | None:
    """Return the instance of a guid."""
    number = str(guid).removeprefix(GUID_PREFIX)
    return session.get(Instance, int(number)) if number.isdecimal() else None


_OPERATORS = Rule()
_VIEWERS = Rule(viewer=True)
_EVERYONE_WITH_A_CERTIFICATE = Rule(viewer=True, computer=_anything, partition=_anything)
_THE_COMPUTER = Rule(computer=_own_computer())
_THE_COMPUTER_OR_PARTITION = Rule(computer=_own_computer(), partition=_own_partition())
_THE_PARTITION = Rule(partition=_own_partition())

#: The rule of each endpoint, by the name that Flask knows it by.
RULES: Mapping[str, Rule] = {
    # The slap protocol: what slapgrid and format call with the computer's certificate, what recipes
    # and watchdogs call with the partition's.
    "protocol.get_full_computer_information": _THE_COMPUTER,
    "protocol.register_computer_partition": Rule(
        computer=_own_computer("computer_reference"),
        partition=_own_partition("computer_reference", "computer_partition_reference"),
    ),
    "protocol.request_computer_partition": Rule(partition=_own_request),
    "protocol.set_computer_partition_connection_xml": _THE_PARTITION,
    "protocol.started_computer_partition": _THE_COMPUTER,
    "protocol.stopped_computer_partition": _THE_COMPUTER,
    "protocol.destroyed_computer_partition": _THE_COMPUTER,
    "protocol.software_instance_error": _THE_COMPUTER_OR_PARTITION,
    "protocol.software_instance_rename": _THE_PARTITION,
    "protocol.software_instance_bang": _THE_COMPUTER_OR_PARTITION,
    "protocol.computer_bang": _THE_COMPUTER,
    "protocol.update_computer_partition_related_instance_list": _THE_COMPUTER_OR_PARTITION,
    "protocol.supply_supply": _OPERATORS,
    "protocol.building_software_release": _THE_COMPUTER,
    "protocol.available_software_release": _THE_COMPUTER,
    "protocol.destroyed_software_release": _THE_COMPUTER,
    "protocol.software_release_error": _THE_COMPUTER,
    "protocol.load_computer_configuration_from_xml": Rule(computer=_own_xml),
    "protocol.use_computer": _THE_COMPUTER,
    "protocol.get_computer_partition_certificate": _THE_COMPUTER,
    "protocol.generate_computer_certificate": _OPERATORS,
    "protocol.revoke_computer_certificate": _OPERATORS,
    "protocol.get_computer_status": Rule(viewer=True, computer=_own_computer()),
    "protocol.get_computer_partition_status": _THE_COMPUTER_OR_PARTITION,
    "protocol.get_hosting_subscription_ip_list": _THE_COMPUTER_OR_PARTITION,
    "protocol.get_software_release_list_from_software_product": _EVERYONE_WITH_A_CERTIFICATE,
    "protocol.get_hateoas_url": _EVERYONE_WITH_A_CERTIFICATE,
    # The JSON-RPC methods of the slap protocol.
    "json_rpc.post_software_instance": Rule(partition=_own_request),
    "json_rpc.get_software_instance": Rule(computer=_own_guid_of_computer, partition=_own_guid),
    "json_rpc.get_compute_partition": Rule(
        computer=_own_document, partition=_own_partition_document
    ),
    "json_rpc.get_instance_tree": _OPERATORS,
    "json_rpc.all_instance_trees": _VIEWERS,
    "json_rpc.all_instances_of_computer": Rule(computer=_own_document),
    "json_rpc.all_shared_instances": Rule(computer=_own_guid_of_computer, partition=_own_guid),
    "json_rpc.put_reported_state": Rule(computer=_own_guid_of_computer),
    "json_rpc.put_instance_error": Rule(computer=_own_guid_of_computer, partition=_own_guid),
    "json_rpc.put_instance_bang": Rule(computer=_own_guid_of_computer, partition=_own_guid),
    "json_rpc.put_instance_title": Rule(partition=_own_guid),
    "json_rpc.put_connection_parameters": Rule(partition=_own_guid),
    "json_rpc.post_software_installation": _OPERATORS,
    "json_rpc.all_software_of_computer": Rule(computer=_own_document),
    "json_rpc.put_software_state": Rule(computer=_own_document),
    "json_rpc.put_software_error": Rule(computer=_own_document),
    "json_rpc.put_format": Rule(computer=_own_document),
    "json_rpc.put_computer_bang": Rule(computer=_own_document),
    "json_rpc.post_usage": Rule(computer=_own_document),
    "json_rpc.get_computer_status": Rule(viewer=True, computer=_own_document),
    "json_rpc.all_computers": _VIEWERS,
    "json_rpc.get_instance_certificate": Rule(computer=_own_guid_of_computer),
    "json_rpc.post_computer_certificate": _OPERATORS,
    "json_rpc.remove_computer_certificate": _OPERATORS,
    "json_rpc.get_hateoas_url": _EVERYONE_WITH_A_CERTIFICATE,
    # What `slapos service` and `slapos computer` read.
    "hateoas.root": _VIEWERS,
    "hateoas.search": _VIEWERS,
    "hateoas.document": _VIEWERS,
    # The API of our own tools.
    "api.health": _EVERYONE_WITH_A_CERTIFICATE,
    "catalog.put_product": _OPERATORS,
    "catalog.delete_product": _OPERATORS,
    "catalog.get_products": _VIEWERS,
    "catalog.get_product": _VIEWERS,
    "catalog.get_software": _VIEWERS,
    "plan_api.post_request": _OPERATORS,
    "plan_api.post_plan": _OPERATORS,
    "plan_api.get_plan": _VIEWERS,
    "plan_api.apply_plan": _OPERATORS,
    "plan_api.get_history": _VIEWERS,
    "plan_api.get_request_of_the_past": _VIEWERS,
    "api.get_instances": _VIEWERS,
    "api.get_instance": _VIEWERS,
    "registry.put_computer": _OPERATORS,
    "registry.get_computers": _VIEWERS,
    "registry.get_computer": Rule(viewer=True, computer=_own_path),
    "registry.delete_computer": _OPERATORS,
    "registry.put_measurement": Rule(computer=_own_path),
    "registry.put_build": Rule(computer=_own_path),
    "registry.get_due": Rule(computer=_own_path),
    "registry.get_location": _THE_COMPUTER_OR_PARTITION,
    "registry.move_instance": _OPERATORS,
    "registry.get_status": _VIEWERS,
    "metrics.metrics": _VIEWERS,
    "registration.request_computer": Rule(anonymous=True),
    "registration.get_certificate": Rule(anonymous=True),
    "registration.get_computer_token": _OPERATORS,
    # How callers come in, stay in and are kept out.
    "access.join": Rule(anonymous=True),
    "access.renew": Rule(viewer=True, computer=_anything),
    "access.post_token": _OPERATORS,
    "access.get_users": _VIEWERS,
    "access.post_user": _OPERATORS,
    "access.delete_user": _OPERATORS,
    "access.get_certificates": _VIEWERS,
    "access.revoke_certificate": _OPERATORS,
    "access.get_revoked": _EVERYONE_WITH_A_CERTIFICATE,
    "access.get_authority": _EVERYONE_WITH_A_CERTIFICATE,
    # How nodes and users of a cluster come into it.
    "cluster.get_cluster": _THE_PARTITION,
    "cluster.get_cluster_of_instance": _VIEWERS,
    "cluster.post_node_certificate": Rule(partition=_own_place_document),
    "cluster.post_user_certificate": _OPERATORS,
    # What is asked of the NEO of a cluster, and how its keeper answers.
    "operations.post_look": _VIEWERS,
    "operations.post_operation": _OPERATORS,
    "operations.get_operations": _VIEWERS,
    "operations.get_operation": _VIEWERS,
    "operations.delete_operation": _OPERATORS,
    "operations.get_offered": _THE_PARTITION,
    "operations.put_report": Rule(partition=_own_place_document),
}

_REMEDIES = {
    ANONYMOUS: "join with a token, and show your certificate",
    VIEWER: "ask an operator to do it, or to make you one",
    COMPUTER: "a computer may act for itself only; use an operator's certificate for more",
    PARTITION: "an instance may act for itself only; use an operator's certificate for more",
}


def check_rights() -> None:
    """Refuse what the caller may not do; leave in ``flask.g.right`` what checks it again.

    :raises ForbiddenError: with what to do about it.
    """
    caller: Caller = g.caller
    rule = RULES.get(request.endpoint or "")
    g.right = partial(_check, caller, rule)
    if request.endpoint is None and caller.kind != ANONYMOUS:
        return  # there is nothing of that name to protect
    with context().reading() as session:
        g.right(session)


def _check(caller: Caller, rule: Rule | None, session: Session) -> None:
    """Refuse what the rule does not allow to the caller."""
    if rule is None:
        raise ForbiddenError(
            f"nobody may call {request.method} {request.path}", _REMEDIES.get(caller.kind, "")
        )
    if not _allows(rule, caller, session):
        others = "" if _check_of(rule, caller) is None else " for another"
        raise ForbiddenError(
            f"{_described(caller)} may not call {request.method} {request.path}{others}",
            _REMEDIES[caller.kind],
        )


def _allows(rule: Rule, caller: Caller, session: Session) -> bool:
    """Say whether a rule lets a caller in."""
    if rule.anonymous or caller.kind == OPERATOR:
        return True
    check = _check_of(rule, caller)
    if check is not None:
        return check(session, caller)
    return rule.viewer and caller.kind == VIEWER


def _check_of(rule: Rule, caller: Caller) -> Check | None:
    """Return the check that a rule has for such a caller."""
    return {COMPUTER: rule.computer, PARTITION: rule.partition}.get(caller.kind)


def _described(caller: Caller) -> str:
    """Return how a refusal names the caller."""
    return f"{caller.kind} {caller.name!r}" if caller.name else "a caller without a certificate"
