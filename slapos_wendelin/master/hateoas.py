# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hateoas routes that ``slapos service``, ``slapos computer`` and the console read.

slapos.slap.hateoas in the installed slapos.core is the reference: it reads the root document,
expands the search template with a query and the traverse template with the relative_url of a
result.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flask import Blueprint, g, request
from slapos.util import dict2xml
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from slapos_wendelin.master import registry, views
from slapos_wendelin.master.checks import shown
from slapos_wendelin.master.computer_fields import REMOVED
from slapos_wendelin.master.context import VIEWER, context
from slapos_wendelin.master.documents import access_status, computer_status, software_status
from slapos_wendelin.master.errors import InvalidRequestError
from slapos_wendelin.master.masking import masked
from slapos_wendelin.master.models import Computer, Instance, Software

blueprint = Blueprint("hateoas", __name__, url_prefix="/hateoas")

_Contents = list[dict[str, Any]]

_VALID = " AND validation_state:validated"


@blueprint.get("/")
def root() -> dict[str, Any]:
    """Give the two templates."""
    base = f"{request.host_url}hateoas/"
    return {
        "_links": {
            "self": {"href": base.rstrip("/")},
            "raw_search": {"href": f"{base}search{{?query}}"},
            "traverse": {"href": f"{base}document{{?relative_url}}"},
        }
    }


@blueprint.get("/search")
def search() -> dict[str, Any]:
    """Give the trees, instances, computers or software releases that a query asks for."""
    query = request.args.get("query", "")
    for kind, (field, find) in _KINDS.items():
        if query.startswith(f"portal_type:{kind}{_VALID}"):
            condition = query.removeprefix(f"portal_type:{kind}{_VALID}")
            with context().reading() as session:
                found = find(session, _equality(condition, field))
                return {"_embedded": {"contents": [_visible(each) for each in found]}}
    known = ", ".join(_KINDS)
    raise InvalidRequestError(f"the query {shown(query)} is not known", f"ask for {known}")


@blueprint.get("/document")
def document() -> dict[str, Any]:
    """Give the fields of one instance tree or computer."""
    kind, _, reference = request.args.get("relative_url", "").partition("/")
    with context().reading() as session:
        if kind == "instance_tree":
            instance = views.find_instance(session, reference)
            return _view("Instance Tree", _tree_fields(instance))
        if kind == "compute_node":
            host = registry.computer(session, reference)
            return _view("Compute Node", _computer_fields(host))
    raise InvalidRequestError(
        f"there is no document {shown(kind)}", "take relative_url from a search"
    )


def _trees(session: Session, title: str | None) -> _Contents:
    """Return the live roots, or the one of that name."""
    query = select(Instance).where(Instance.tree_id == 0, Instance.live.is_(True))
    if title is not None:
        query = query.where(Instance.reference == title)
    return [
        {
            "title": each.reference,
            "reference": each.guid,
            "url_string": each.software_release,
            "relative_url": f"instance_tree/{each.guid}",
        }
        for each in session.scalars(query.order_by(Instance.reference))
    ]


def _instances(session: Session, title: str | None) -> _Contents:
    """Return the live instances of the tree with that name."""
    root = views.find_instance(session, title or "")
    query = select(Instance).where(
        or_(Instance.id == root.id, Instance.tree_id == root.id), Instance.live.is_(True)
    )
    return [
        {
            "uid": each.id,
            "title": each.reference,
            "relative_url": f"instance_tree/{each.guid}",
            "portal_type": "Slave Instance" if each.shared else "Software Instance",
            "url_string": each.software_release,
            "text_content": dict2xml(_visible(each.parameters)),
            "getConnectionXmlAsDict": each.connection,
            "SoftwareInstance_getNewsDict": {"text": access_status(each)},
        }
        for each in session.scalars(query.order_by(Instance.id))
    ]


def _computers(session: Session, reference: str | None) -> _Contents:
    """Return the computers, or the one of that reference."""
    query = select(Computer).where(Computer.state != REMOVED)
    if reference is not None:
        query = query.where(Computer.reference == reference)
    return [
        {
            "title": each.reference,
            "reference": each.reference,
            "relative_url": f"compute_node/{each.reference}",
        }
        for each in session.scalars(query.order_by(Computer.reference))
    ]


def _software(session: Session, computer: str | None) -> _Contents:
    """Return the software releases, or those of that computer."""
    query = select(Software).join(Computer)
    if computer is not None:
        query = query.where(Computer.reference == computer)
    return [
        {
            "uid": each.id,
            "relative_url": f"compute_node/{each.computer.reference}",
            "url_string": each.url,
            "SoftwareInstallation_getNewsDict": {"text": software_status(each)},
        }
        for each in session.scalars(query.order_by(Software.id))
    ]


#: For each portal type in a query, the field that it may compare and what finds the contents.
_KINDS: dict[str, tuple[str, Callable[[Session, str | None], _Contents]]] = {
    '"Instance Tree"': ("title", _trees),
    '("Software Instance", "Slave Instance")': ("default_specialise_title", _instances),
    '"Compute Node"': ("reference", _computers),
    '"Software Installation"': ("default_aggregate_reference", _software),
}


def _equality(condition: str, field: str) -> str | None:
    """Return the value of `` AND field:="value"``, or None when there is no condition.

    The client puts the value in without quoting it, so everything up to the last quote is the
    value.
    """
    if not condition:
        return None
    match = re.fullmatch(rf' AND {field}:="(.*)"', condition, re.DOTALL)
    if match is None:
        raise InvalidRequestError(
            f"the condition {shown(condition)} is not known", f"compare {field} only"
        )
    return match[1]


def _tree_fields(instance: Instance) -> dict[str, Any]:
    """Return what ``slapos service info`` shows."""
    return {
        "reference": instance.guid,
        "title": instance.reference,
        "slap_state": instance.state,
        "text_content": dict2xml(_visible(instance.parameters)),
        "connection_parameter_list": [
            {"connection_key": key, "connection_value": value}
            for key, value in sorted(_visible(instance.connection).items())
        ],
        **_visible({"url_string": instance.software_release}),
        "source_reference": instance.software_type,
        "root_slave": int(instance.shared),
        "news": {"instance": [_visible({"text": access_status(instance)})]},
    }


def _computer_fields(host: Computer) -> dict[str, Any]:
    """Return what ``slapos computer info`` shows, and the news that the slap library reads."""
    status = computer_status(host, context().presence.last(host))
    partitions = {
        place.reference: _visible({"text": access_status(place.instance)})
        for place in host.partitions
        if place.instance is not None
    }
    return {
        "reference": host.reference,
        "title": host.reference,
        "news": {"computer": status, "partition": partitions},
    }


def _visible(values: dict[str, Any]) -> dict[str, Any]:
    """Return values as the caller may see them: a viewer without their secrets."""
    shown_values: dict[str, Any] = masked(values) if g.caller.kind == VIEWER else values
    return shown_values


def _view(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields in the form in which the client looks for them."""
    view: dict[str, Any] = {"form_id": {"type": "StringField", "key": "form_id", "default": "view"}}
    for name, value in fields.items():
        view[f"my_{name}"] = {"type": "StringField", "key": f"field_my_{name}", "default": value}
    return {"_embedded": {"_view": view}, "_links": {"type": {"name": kind}}}
