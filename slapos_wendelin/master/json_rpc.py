# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The slap protocol's JSON-RPC methods: what slapos.core's OpenAPI files describe.

Each request and each answer is checked against those files. A refusal is told in a document with
status, type and title.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import select
from werkzeug.exceptions import BadRequest
from werkzeug.http import HTTP_STATUS_CODES

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master import computers, handing_out, open_api, registry, reports, views
from slapos_wendelin.master import requests as instance_requests
from slapos_wendelin.master.access import revoke
from slapos_wendelin.master.checks import AVAILABLE, DESTROYED, check_name, check_url
from slapos_wendelin.master.context import COMPUTER, context
from slapos_wendelin.master.documents import computer_status, instance_fields
from slapos_wendelin.master.errors import (
    ConflictError,
    InvalidRequestError,
    NoCapacityError,
    UnknownError,
)
from slapos_wendelin.master.marshalling import texts
from slapos_wendelin.master.models import Computer, Instance
from slapos_wendelin.master.renaming import rename
from slapos_wendelin.master.requesting import requesting_partition
from slapos_wendelin.master.shared import place_of
from slapos_wendelin.master.usage import read_usage

blueprint = Blueprint("json_rpc", __name__)

_Document = dict[str, Any]
_Handler = Callable[[_Document], _Document]

#: What a method refuses is forbidden, as on other masters: a caller cannot tell what does not exist
#: from what is none of its business.
_FORBIDDEN = (UnknownError, ConflictError, NoCapacityError)


def is_method(path: str) -> bool:
    """Say whether a path is one of these methods."""
    return path.startswith("/slapos.")


def refusal_status(error: WendelinError, status: int) -> int:
    """Return the status that tells an error here.

    :param status: the one that tells it elsewhere.
    """
    return 403 if isinstance(error, _FORBIDDEN) else status


def refusal(status: int, text: str) -> Response:
    """Return the answer that tells an error."""
    kind = HTTP_STATUS_CODES.get(status, "Unknown Error")
    response = jsonify({"status": status, "type": kind, "title": text})
    response.status_code = status
    return response


def _method(name: str) -> Callable[[_Handler], _Handler]:
    """Serve a method with the decorated function, which takes and returns a document."""

    def serve(handler: _Handler) -> _Handler:
        def view() -> _Document:
            method = open_api.methods()[f"/{name}"]
            sent = _body()
            method.check_input(sent)
            answer = handler(sent)
            method.check_output(answer)
            return answer

        blueprint.add_url_rule(f"/{name}", handler.__name__, view, methods=["POST"])
        return handler

    return serve


def _body() -> Any:
    """Return the value that was sent."""
    try:
        return request.get_json()
    except (BadRequest, RecursionError) as error:
        raise InvalidRequestError("the body is not one JSON document", "send one object") from error


def _success(title: str) -> _Document:
    """Return the answer of a method that has nothing to tell but that it did its work."""
    return {"type": "success", "title": title}


@_method("slapos.post.v0.software_instance")
def post_software_instance(sent: _Document) -> _Document:
    """Create, change, stop or destroy an instance for a user or for another instance."""
    wanted = instance_requests.InstanceRequest(
        reference=check_name(sent["title"], "title"),
        software_release=check_url(sent["software_release_uri"], "software_release_uri"),
        software_type=check_name(sent["software_type"], "software_type"),
        state=sent.get("state", "started"),
        parameters=texts(sent.get("parameters", {}), "parameters"),
        sla=sent.get("sla_parameters", {}),
        shared=sent.get("shared", False),
    )
    place = requesting_partition()
    with context().writing() as session:
        requester = None if place is None else instance_requests.requester_of(session, *place)
        instance = instance_requests.request_instance(session, wanted, requester)
        if instance is None:
            raise UnknownError(
                f"there is no instance {wanted.reference!r} to destroy", "nothing is left to do"
            )
        session.flush()
        return instance_fields(instance)


@_method("slapos.get.v0.software_instance")
def get_software_instance(sent: _Document) -> _Document:
    """Give an instance."""
    with context().reading() as session:
        return _with_own_addresses(registry.instance(session, sent["instance_guid"]))


@_method("slapos.get.v0.compute_partition")
def get_compute_partition(sent: _Document) -> _Document:
    """Give the instance in a partition."""
    with context().reading() as session:
        return instance_fields(
            registry.instance_in(session, sent["computer_guid"], sent["compute_partition_id"])
        )


@_method("slapos.get.v0.instance_tree")
def get_instance_tree(sent: _Document) -> _Document:
    """Give the root of a tree by its name."""
    with context().reading() as session:
        return _with_own_addresses(views.find_instance(session, sent["title"]))


@_method("slapos.allDocs.v0.instance_tree_list")
def all_instance_trees(_sent: _Document) -> _Document:
    """Give the names of all roots."""
    with context().reading() as session:
        names = session.scalars(
            select(Instance.reference)
            .where(Instance.tree_id == 0, Instance.live.is_(True))
            .order_by(Instance.reference)
        )
        return {"result_list": [{"title": name} for name in names]}


@_method("slapos.allDocs.v0.compute_node_instance_list")
def all_instances_of_computer(sent: _Document) -> _Document:
    """Tell a computer its instances."""
    with context().reading() as session:
        host = registry.computer(session, sent["computer_guid"])
        result = [
            {
                "title": place.instance.reference,
                "instance_guid": place.instance.guid,
                "state": place.instance.state,
                "compute_partition_id": place.reference,
                "software_release_uri": place.instance.software_release,
            }
            for place in host.partitions
            if place.instance is not None
        ]
    if context().is_call_of_computer():
        context().presence.read(host, request.remote_addr or "")
    return {"result_list": result}


@_method("slapos.allDocs.v0.instance_node_instance_list")
def all_shared_instances(sent: _Document) -> _Document:
    """Tell an instance the shared instances that it hosts."""
    with context().reading() as session:
        provider = registry.instance(session, sent["instance_guid"])
        place = place_of(provider)
        if provider.shared or place is None:
            raise UnknownError(
                f"{provider.guid} hosts no instances", "ask for one with a partition"
            )
        return {
            "result_list": [
                {
                    "title": each.reference,
                    "instance_guid": each.guid,
                    "software_type": each.software_type,
                    "state": each.state,
                    "parameters": each.parameters,
                    "compute_partition_id": place.reference,
                }
                for each in provider.shared_instances
            ]
        }


@_method("slapos.put.v0.software_instance_reported_state")
def put_reported_state(sent: _Document) -> _Document:
    """Keep the state that an instance is in."""
    state = sent["reported_state"]
    with context().writing() as session:
        if state != DESTROYED:
            instance = registry.instance(session, sent["instance_guid"])
            reports.report_state(session, instance, state)
            return _success("Kept")
        instance = registry.instance(session, sent["instance_guid"], gone=True)
        if instance.partition is not None:
            reports.report_destroyed(session, instance.partition)
        elif instance.destroyed_at is None:
            raise ConflictError(
                f"{instance.guid} is to be {instance.state}",
                "destroy it with `slapos request --state destroyed` first",
            )
    return _success("Destroyed")


@_method("slapos.put.v0.software_instance_error")
def put_instance_error(sent: _Document) -> _Document:
    """Keep the error of an instance."""
    with context().writing() as session:
        reports.report_error(registry.instance(session, sent["instance_guid"]), sent["message"])
    return _success("Kept")


@_method("slapos.put.v0.software_instance_bang")
def put_instance_bang(sent: _Document) -> _Document:
    """Make every instance of the tree due."""
    with context().writing() as session:
        reports.bang_tree(session, registry.instance(session, sent["instance_guid"]))
    return _success("Bang handled")


@_method("slapos.put.v0.software_instance_title")
def put_instance_title(sent: _Document) -> _Document:
    """Rename an instance."""
    title = check_name(sent["title"], "title")
    with context().writing() as session:
        rename(session, registry.instance(session, sent["instance_guid"]), title)
    return _success("Renamed")


@_method("slapos.put.v0.software_instance_connection_parameter")
def put_connection_parameters(sent: _Document) -> _Document:
    """Keep what an instance publishes."""
    connection = texts(sent["connection_parameter_dict"], "connection_parameter_dict")
    with context().writing() as session:
        instance = registry.instance(session, sent["instance_guid"])
        reports.set_connection(session, instance, connection)
    return _success("Updated")


@_method("slapos.post.v0.software_installation")
def post_software_installation(sent: _Document) -> _Document:
    """Ask for a software release on a computer, or for its removal."""
    url = check_url(sent["software_release_uri"], "software_release_uri")
    state = sent.get("state", AVAILABLE)
    with context().writing() as session:
        registry.supply(session, registry.computer(session, sent["computer_guid"]), url, state)
    return _success(f"Supplied {url} to be {state}")


@_method("slapos.allDocs.v0.compute_node_software_installation_list")
def all_software_of_computer(sent: _Document) -> _Document:
    """Tell a computer its software releases."""
    with context().reading() as session:
        host = registry.computer(session, sent["computer_guid"])
        return {
            "result_list": [
                {"software_release_uri": each.url, "state": each.requested_state}
                for each in host.software
            ]
        }


@_method("slapos.put.v0.software_installation_reported_state")
def put_software_state(sent: _Document) -> _Document:
    """Keep the state of a release on a computer."""
    return _success("Kept" if _report_software(sent, sent["reported_state"]) else "Ignored")


@_method("slapos.put.v0.software_installation_error")
def put_software_error(sent: _Document) -> _Document:
    """Keep why a release could not be built."""
    kept = _report_software(sent, "error", sent["message"] or "no text was reported")
    return _success("Kept" if kept else "Ignored")


@_method("slapos.put.v0.compute_node_format")
def put_format(sent: _Document) -> _Document:
    """Take over the partitions that the formatting of a computer made."""
    name = check_name(sent["computer_guid"], "computer_guid")
    partitions = [
        (
            each["partition_id"],
            [
                [address.get("network-interface") or each["partition_id"], address["ip-address"]]
                for address in each.get("ip_list", ())
            ],
        )
        for each in sent["compute_partition_list"]
    ]
    with context().writing() as session:
        host = registry.put_partitions(session, name, partitions)
        context().presence.seen_in_transaction(host, request.remote_addr or "")
    return _success("Formatted")


@_method("slapos.put.v0.compute_node_bang")
def put_computer_bang(sent: _Document) -> _Document:
    """Make every instance of the computer due."""
    with context().writing() as session:
        reports.bang_computer(session, registry.computer(session, sent["computer_guid"]))
    return _success("Bang handled")


@_method("slapos.post.v0.compute_node_usage")
def post_usage(sent: _Document) -> _Document:
    """Keep the averages in a usage report."""
    usage = read_usage(sent["tioxml"], sent["computer_guid"], "tioxml")
    with context().writing() as session:
        host = registry.computer(session, sent["computer_guid"])
        computers.keep_usage(host, usage)
        context().presence.seen_in_transaction(host, request.remote_addr or "")
    return _success("Kept" if usage else "Ignored")


@_method("slapos.get.v0.compute_node_status")
def get_computer_status(sent: _Document) -> _Document:
    """Give when a computer was last in contact."""
    with context().reading() as session:
        host = registry.computer(session, sent["computer_guid"])
        return computer_status(host, context().presence.last(host))


@_method("slapos.allDocs.WIP.compute_node_list")
def all_computers(_sent: _Document) -> _Document:
    """Give the names of all computers."""
    with context().reading() as session:
        names = session.scalars(select(Computer.reference).order_by(Computer.reference))
        return {"result_list": [{"computer_guid": name} for name in names]}


@_method("slapos.get.v0.software_instance_certificate")
def get_instance_certificate(sent: _Document) -> _Document:
    """Give the certificate and key of an instance, which its computer writes as they are."""
    with context().reading() as session:
        guid = registry.instance(session, sent["instance_guid"]).guid
    return handing_out.partition_certificate(guid)


@_method("slapos.post.v0.compute_node_certificate")
def post_computer_certificate(sent: _Document) -> _Document:
    """Give an operator a certificate and a key for a computer."""
    return handing_out.computer_certificate(sent["computer_guid"])


@_method("slapos.remove.v0.compute_node_certificate")
def remove_computer_certificate(sent: _Document) -> _Document:
    """Revoke the certificates of a computer."""
    with context().writing() as session:
        host = registry.computer(session, sent["computer_guid"])
        count = revoke(session, COMPUTER, host.reference, "an operator revoked it")
    return _success(f"Revoked {count}")


@_method("slapos.get.v0.hateoas_url")
def get_hateoas_url(_sent: _Document) -> _Document:
    """Give the address of the routes that ``slapos service`` and ``slapos computer`` read."""
    return {"hateoas_url": f"{request.host_url}hateoas/"}


def _with_own_addresses(instance: Instance) -> _Document:
    """Return an instance without its provider's addresses."""
    fields = instance_fields(instance)
    return fields | {"ip_list": []} if instance.shared else fields


def _report_software(sent: Mapping[str, Any], state: str, error: str = "") -> bool:
    """Keep the reported state of a release; return whether it is asked for there."""
    with context().writing() as session:
        host = registry.computer(session, sent["computer_guid"])
        return reports.report_software(session, host, sent["software_release_uri"], state, error)
