# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few hateoas routes that ``slapos service`` and ``slapos computer`` read.

slapos.slap.hateoas in the installed slapos.core is the reference: it reads the root document,
expands the search template with a query and the traverse template with the relative_url of a
result.
"""

from __future__ import annotations

import re
from typing import Any

from flask import Blueprint, request
from slapos.util import dict2xml
from sqlalchemy import select

from slapos_wendelin.master import registry, views
from slapos_wendelin.master.context import context
from slapos_wendelin.master.documents import access_status
from slapos_wendelin.master.errors import InvalidRequestError
from slapos_wendelin.master.models import Computer, Instance

blueprint = Blueprint("hateoas", __name__, url_prefix="/hateoas")

_TREE_QUERY = 'portal_type:"Instance Tree" AND validation_state:validated'
_COMPUTER_QUERY = 'portal_type:"Compute Node" AND validation_state:validated'


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
    """Give the instance trees or the computers that a query asks for."""
    query = request.args.get("query", "")
    if query.startswith(_TREE_QUERY):
        contents = _trees(_equality(query.removeprefix(_TREE_QUERY), "title"))
    elif query.startswith(_COMPUTER_QUERY):
        contents = _computers(_equality(query.removeprefix(_COMPUTER_QUERY), "reference"))
    else:
        raise InvalidRequestError(
            f"the query {query[:200]!r} is not known", "ask for Instance Tree or Compute Node"
        )
    return {"_embedded": {"contents": contents}}


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
            return _view("Compute Node", {"reference": host.reference, "title": host.reference})
    raise InvalidRequestError(f"there is no document {kind!r}", "take relative_url from a search")


def _trees(title: str | None) -> list[dict[str, str]]:
    """Return the live roots, or the one of that name."""
    query = select(Instance).where(Instance.tree_id == 0, Instance.live.is_(True))
    if title is not None:
        query = query.where(Instance.reference == title)
    with context().reading() as session:
        return [
            {
                "title": each.reference,
                "reference": each.guid,
                "url_string": each.software_release,
                "relative_url": f"instance_tree/{each.guid}",
            }
            for each in session.scalars(query.order_by(Instance.reference))
        ]


def _computers(reference: str | None) -> list[dict[str, str]]:
    """Return the computers, or the one of that reference."""
    query = select(Computer)
    if reference is not None:
        query = query.where(Computer.reference == reference)
    with context().reading() as session:
        return [
            {
                "title": each.reference,
                "reference": each.reference,
                "relative_url": f"compute_node/{each.reference}",
            }
            for each in session.scalars(query.order_by(Computer.reference))
        ]


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
            f"the condition {condition[:200]!r} is not known", f"compare {field} only"
        )
    return match[1]


def _tree_fields(instance: Instance) -> dict[str, Any]:
    """Return what ``slapos service info`` shows."""
    return {
        "reference": instance.guid,
        "title": instance.reference,
        "slap_state": instance.state,
        "text_content": dict2xml(instance.parameters),
        "connection_parameter_list": [
            {"connection_key": key, "connection_value": value}
            for key, value in sorted(instance.connection.items())
        ],
        "url_string": instance.software_release,
        "source_reference": instance.software_type,
        "root_slave": int(instance.shared),
        "news": {"instance": [{"text": access_status(instance)}]},
    }


def _view(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields in the form in which the client looks for them."""
    view: dict[str, Any] = {"form_id": {"type": "StringField", "key": "form_id", "default": "view"}}
    for name, value in fields.items():
        view[f"my_{name}"] = {"type": "StringField", "key": f"field_my_{name}", "default": value}
    return {"_embedded": {"_view": view}, "_links": {"type": {"name": kind}}}
