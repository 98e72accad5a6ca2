# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The /v1 endpoints: JSON in, JSON out."""

from __future__ import annotations

from typing import Any

from flask import Blueprint
from sqlalchemy import select, text

from slapos_wendelin.master import views
from slapos_wendelin.master.arguments import json_body
from slapos_wendelin.master.checks import check_name, check_url
from slapos_wendelin.master.context import context
from slapos_wendelin.master.errors import InvalidRequestError, UnknownError
from slapos_wendelin.master.models import Product

blueprint = Blueprint("api", __name__, url_prefix="/v1")


@blueprint.get("/health")
def health() -> dict[str, Any]:
    """Say that the master answers and reads its database."""
    with context().reading() as session:
        session.execute(text("SELECT 1"))
    return {"status": "ok"}


@blueprint.put("/products/<path:name>")
def put_product(name: str) -> dict[str, Any]:
    """Put a product into the catalog, or replace it."""
    body = json_body("release_url", "software_type", "version", "defaults")
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
