# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates of a cluster's nodes and users: how they are signed and how they end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from ipaddress import ip_address

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos_wendelin.certificates import CLIENT, NODE, Subject
from slapos_wendelin.master.access import revoke
from slapos_wendelin.master.authority import Authority, Issued
from slapos_wendelin.master.cluster_authority import ClusterAuthority
from slapos_wendelin.master.endings import is_gone
from slapos_wendelin.master.errors import UnknownError
from slapos_wendelin.master.models import GUID_PREFIX, Certificate, Instance
from slapos_wendelin.master.reports import bang_tree
from slapos_wendelin.master.signing import Revoked


def find_cluster(master: Authority, instance: Instance) -> ClusterAuthority | None:
    """Return the authority of an instance's cluster; None when something of it is to be made."""
    return ClusterAuthority.find(master, instance.root_guid)


def cluster_of(session: Session, master: Authority, instance: Instance) -> ClusterAuthority:
    """Return the authority of the cluster that an instance belongs to, made when it is new.

    :param session: one that writes, so that the cluster does not end meanwhile.
    :raises UnknownError: when nothing is left of the cluster, whose authority went with it.
    """
    if is_gone(session, instance.root_id):
        raise UnknownError(
            f"the cluster {instance.root_guid} is gone, and its certificate authority with it",
            "name a cluster that is there; one of the same name has another authority",
        )
    return ClusterAuthority(master, instance.root_guid)


def sign_for_node(cluster: ClusterAuthority, instance: Instance, request: str) -> Issued:
    """Sign a certificate for an instance.

    :raises InvalidRequestError: when the request cannot be signed.
    """
    subject = Subject(NODE, f"{instance.root_guid}/{instance.guid}")
    addresses = addresses_of(instance)
    return cluster.signer.issue_from_request(request, subject, addresses=addresses)


def addresses_of(instance: Instance) -> list[str]:
    """Return the addresses of an instance's partition, which the certificate of a node names."""
    pairs = instance.partition.addresses if instance.partition else []
    return sorted({address for _, text in pairs if (address := _address_in(text))})


def _address_in(text: str) -> str | None:
    """Return an address as certificates hold it, None for a text that is none.

    Computers may tell anything. The interface of an address of IPv6 (``%eth0``) is left out.
    """
    try:
        return str(ip_address(ip_address(text).packed))
    except ValueError:
        return None


def sign_for_user(cluster: ClusterAuthority, root: Instance, user: str, request: str) -> Issued:
    """Sign a certificate with which a user's programs use a cluster.

    :raises InvalidRequestError: when the request cannot be signed.
    """
    subject = Subject(CLIENT, f"{root.root_guid}/{user}")
    return cluster.signer.issue_from_request(request, subject)


def revoked_in(session: Session, root: str) -> Sequence[Revoked]:
    """Return the certificates of a cluster that were revoked and have not ended.

    :param root: the guid of the root of its tree.
    """
    found = session.scalars(
        select(Certificate)
        .where(
            Certificate.kind.in_((NODE, CLIENT)),
            Certificate.name.startswith(f"{root}/", autoescape=True),
            Certificate.revoked_at.is_not(None),
            Certificate.not_after > time.time(),
        )
        .order_by(Certificate.serial)
    )
    return [Revoked(each.serial, each.revoked_at or 0.0) for each in found]


def revoke_user(session: Session, user: str, reason: str) -> None:
    """Revoke what a user has in any cluster, and let the nodes there know."""
    names = session.scalars(
        select(Certificate.name)
        .where(
            Certificate.kind == CLIENT,
            Certificate.name.endswith(f"/{user}", autoescape=True),
            Certificate.revoked_at.is_(None),
        )
        .distinct()
    )
    for name in names.all():
        if name.partition("/")[2] == user:
            revoke(session, CLIENT, name, reason)
            tell_nodes(session, name)


def tell_nodes(session: Session, name: str) -> None:
    """Make the nodes of a cluster due, so that they learn what was revoked.

    :param name: the name of a certificate's subject.
    """
    root = session.get(Instance, int(name.partition("/")[0].removeprefix(GUID_PREFIX)))
    if root is not None:
        bang_tree(session, root)
