# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The /v1 endpoints: JSON in, JSON out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Blueprint, request
from sqlalchemy import select, text
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from slapos_wendelin.master import registry, views
from slapos_wendelin.master.checks import check_name, check_url
from slapos_wendelin.master.context import context
from slapos_wendelin.master.errors import InvalidRequestError, UnknownError
from slapos_wendelin.master.models import Computer, Product, Software

blueprint = Blueprint("api", __name__, url_prefix="/v1")

_Number = TypeVar("_Number", int, float)

#: The longest that a request may wait, in seconds.
_LONGEST_WAIT = 300.0


@blueprint.get("/health")
def health() -> dict[str, Any]:
    """Say that the master answers and reads its database."""
    with context().reading() as session:
        session.execute(text("SELECT 1"))
    return {"status": "ok"}


@blueprint.put("/computers/<path:reference>")
def put_computer(reference: str) -> dict[str, Any]:
    """Register a computer, or change what is known of it."""
    body = _body("datacenter", "region", "labels")
    labels = body.get("labels")
    if labels is not None and not _is_texts(labels):
        raise InvalidRequestError(f"labels is {labels!r}", "send an object of texts")
    with context().writing() as session:
        host = registry.put_computer(
            session, reference, _place_name(body, "datacenter"), _place_name(body, "region"), labels
        )
        return views.computer_view(host, context().presence.last(host))


@blueprint.get("/computers")
def get_computers() -> list[dict[str, Any]]:
    """Give every computer."""
    with context().reading() as session:
        hosts = session.scalars(select(Computer).order_by(Computer.reference))
        return [views.computer_view(host, context().presence.last(host)) for host in hosts]


@blueprint.get("/computers/<path:reference>/due")
def get_due(reference: str) -> dict[str, Any]:
    """Give a computer its work newer than a number, waiting for it if need be.

    Nothing is held while it waits but a thread: no connection to the database, no lock.
    """
    after = _number("after", int, 0)
    timeout = min(max(_number("timeout", float, 0.0), 0.0), _LONGEST_WAIT)
    database = context().database
    with database.reading() as session:
        host = registry.computer(session, reference)
    context().presence.seen(host)
    if database.board.wait(reference, host.number, after, timeout) <= after:
        return {"number": after, "software": [], "instances": []}
    with database.reading() as session:
        return views.due_view(registry.computer(session, reference), after)


@blueprint.put("/products/<path:name>")
def put_product(name: str) -> dict[str, Any]:
    """Put a product into the catalog, or replace it."""
    body = _body("release_url", "software_type", "version", "defaults")
    defaults = body.get("defaults") or {}
    if not isinstance(defaults, dict):
        raise InvalidRequestError(f"defaults is {defaults!r}", "send an object")
    product = Product(
        name=check_name(name, "the product's name"),
        release_url=check_url(body.get("release_url"), "release_url"),
        software_type=check_name(body.get("software_type") or "default", "software_type"),
        version=check_name(body["version"], "version") if body.get("version") else "",
        defaults=defaults,
    )
    with context().writing() as session:
        return views.product_view(session.merge(product))


@blueprint.get("/products")
def get_products() -> list[dict[str, Any]]:
    """Give the catalog."""
    with context().reading() as session:
        return [
            views.product_view(each)
            for each in session.scalars(select(Product).order_by(Product.name))
        ]


@blueprint.get("/products/<path:name>")
def get_product(name: str) -> dict[str, Any]:
    """Give one product."""
    with context().reading() as session:
        product = session.get(Product, name)
        if product is None:
            known = ", ".join(session.scalars(select(Product.name).order_by(Product.name)))
            raise UnknownError(
                f"there is no product {name!r} in the catalog",
                f"the products are: {known}" if known else "put it there with PUT /v1/products",
            )
        return views.product_view(product)


@blueprint.get("/instances")
def get_instances() -> list[dict[str, Any]]:
    """Give every instance tree of which something is still there."""
    with context().reading() as session:
        return [views.instance_view(root) for root in views.roots(session)]


@blueprint.get("/instances/<path:reference>")
def get_instance(reference: str) -> dict[str, Any]:
    """Give one instance and those below it."""
    with context().reading() as session:
        return views.instance_view(views.find_instance(session, reference))


@blueprint.get("/status")
def get_status() -> dict[str, Any]:
    """Give everything: data centers, computers, software releases, instances."""
    with context().reading() as session:
        hosts = session.scalars(select(Computer).order_by(Computer.reference)).all()
        datacenters: dict[str, list[str]] = {}
        for host in hosts:
            datacenters.setdefault(host.datacenter, []).append(host.reference)
        return {
            "datacenters": [
                {"name": name, "computers": computers}
                for name, computers in sorted(datacenters.items())
            ],
            "computers": [
                views.computer_view(each, context().presence.last(each)) for each in hosts
            ],
            "software": [
                views.software_view(each)
                for each in session.scalars(select(Software).order_by(Software.id))
            ],
            "instances": [views.instance_view(root) for root in views.roots(session)],
        }


def _body(*known: str) -> dict[str, Any]:
    """Return the JSON object of the request's body, which has no other keys than the known."""
    try:
        body = request.get_json()
    except (BadRequest, UnsupportedMediaType, RecursionError) as error:
        raise InvalidRequestError(
            "the body is not JSON that can be read", "send a JSON object as application/json"
        ) from error
    if not isinstance(body, dict):
        raise InvalidRequestError("the body is not a JSON object", "send a JSON object")
    for key in body:
        if key not in known:
            raise InvalidRequestError(
                f"unknown key {key!r}", f"the known ones are {', '.join(known)}"
            )
    return body


def _place_name(body: dict[str, Any], key: str) -> str | None:
    """Return the name of a data center or a region; None when the body does not say."""
    value = body.get(key)
    if value is None or value == "":
        return value
    name = check_name(value, key)
    if "," in name or " " in name:
        raise InvalidRequestError(f"{key} is {name!r}", "use a name without commas and spaces")
    return name


def _number(name: str, kind: Callable[[str], _Number], default: _Number) -> _Number:
    """Return a number from the query."""
    text_value = request.args.get(name)
    if text_value is None:
        return default
    try:
        number = kind(text_value)
    except ValueError:
        number = None
    if number is None or math.isnan(number):
        raise InvalidRequestError(f"{name} is {text_value[:80]!r}", "send a number")
    return number


def _is_texts(value: object) -> bool:
    """Say whether a value is a dictionary of texts."""
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
