# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The /v1 endpoints by which nodes and users of a cluster get certificates of its authority."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, g, request
from sqlalchemy.orm import Session

from slapos_wendelin.master import registry, views
from slapos_wendelin.master.admission import record
from slapos_wendelin.master.arguments import json_body
from slapos_wendelin.master.authority import Issued
from slapos_wendelin.master.cluster_authority import ClusterAuthority
from slapos_wendelin.master.cluster_certificates import (
    addresses_of,
    cluster_of,
    find_cluster,
    revoked_in,
    sign_for_node,
    sign_for_user,
)
from slapos_wendelin.master.context import context
from slapos_wendelin.master.errors import ConflictError, InvalidRequestError
from slapos_wendelin.master.handing_out import authority
from slapos_wendelin.master.models import Instance

blueprint = Blueprint("cluster", __name__, url_prefix="/v1")


@blueprint.get("/cluster")
def get_cluster() -> dict[str, Any]:
    """Give an instance the name of its cluster and what is trusted there."""
    place = [request.args.get(key, "") for key in ("computer_id", "computer_partition_id")]
    return _trusted(lambda session: registry.instance_in(session, *place))


@blueprint.get("/clusters/<path:reference>")
def get_cluster_of_instance(reference: str) -> dict[str, Any]:
    """Give the name of an instance's cluster and what is trusted there."""
    return _trusted(lambda session: views.find_instance(session, reference))


@blueprint.post("/cluster/certificate")
def post_node_certificate() -> dict[str, Any]:
    """Sign the certificate of an instance, for a key that it has made."""
    body = json_body("computer_id", "computer_partition_id", "request")
    place = (_text(body, key) for key in ("computer_id", "computer_partition_id"))
    signer = authority()
    with context().writing() as session:
        instance = registry.instance_in(session, *place)
        cluster = cluster_of(session, signer, instance)
        issued = sign_for_node(cluster, instance, _text(body, "request"))
        return _answer(session, cluster, instance, issued)


@blueprint.post("/clusters/<path:reference>/certificate")
def post_user_certificate(reference: str) -> dict[str, Any]:
    """Sign a certificate with which the programs of the user who calls use a cluster."""
    body = json_body("request")
    signer = authority()
    with context().writing() as session:
        root = views.find_instance(session, reference)
        if not root.is_root:
            raise ConflictError(
                f"{reference!r} is a part of a cluster", "name the root of its instance tree"
            )
        cluster = cluster_of(session, signer, root)
        issued = sign_for_user(cluster, root, g.caller.name, _text(body, "request"))
        return _answer(session, cluster, root, issued)


def _trusted(find: Callable[[Session], Instance]) -> dict[str, Any]:
    """Return the name of an instance's cluster and what is trusted there.

    Most of the time nothing is to be made for that, and nobody has to wait.
    """
    signer = authority()
    with context().reading() as session:
        instance = find(session)
        cluster = find_cluster(signer, instance)
        if cluster is not None:
            return _trust(session, cluster, instance)
    with context().writing() as session:
        instance = find(session)
        return _trust(session, cluster_of(session, signer, instance), instance)


def _answer(
    session: Session, cluster: ClusterAuthority, instance: Instance, issued: Issued
) -> dict[str, Any]:
    """Keep a record of a certificate; return it, and what else its owner needs."""
    record(session, issued)
    return {
        **_trust(session, cluster, instance),
        "serial": issued.serial,
        "not_after": views.timestamp(issued.not_after),
        "certificate": issued.certificate,
    }


def _trust(session: Session, cluster: ClusterAuthority, instance: Instance) -> dict[str, Any]:
    """Return the name of a cluster, what is trusted there, and where the instance is called."""
    revoked = revoked_in(session, instance.root_guid)
    return {
        "name": cluster.name,
        "authority": cluster.trust(revoked),
        "addresses": addresses_of(instance),
    }


def _text(body: dict[str, Any], key: str) -> str:
    """Return a text of the body."""
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidRequestError(f"{key!r} is missing or no text", f"send {key!r} as a text")
    return value
