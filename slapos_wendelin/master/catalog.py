# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog: names that users request instead of release URLs, and its /v1 endpoints."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos_wendelin.master import views
from slapos_wendelin.master.arguments import json_body
from slapos_wendelin.master.checks import check_name, check_url, shown
from slapos_wendelin.master.context import context
from slapos_wendelin.master.errors import InvalidRequestError, UnknownError
from slapos_wendelin.master.models import Product, Software

blueprint = Blueprint("catalog", __name__, url_prefix="/v1")


@blueprint.put("/products/<path:name>")
def put_product(name: str) -> dict[str, Any]:
    """Put a product into the catalog, or replace it."""
    body = json_body("release_url", "software_type", "version", "defaults")
    defaults = body.get("defaults") or {}
    if not isinstance(defaults, dict):
        raise InvalidRequestError(f"defaults is {shown(defaults)}", "send an object")
    product = Product(
        name=_product_name(name),
        release_url=check_url(body.get("release_url"), "release_url"),
        software_type=check_name(body.get("software_type") or "default", "software_type"),
        version=check_name(body["version"], "version") if body.get("version") else "",
        defaults=defaults,
    )
    with context().writing() as session:
        return views.product_view(session.merge(product))


@blueprint.delete("/products/<path:name>")
def delete_product(name: str) -> dict[str, Any]:
    """Take a product out of the catalog; what it was stays in history."""
    with context().writing() as session:
        product = _find(session, name)
        view = views.product_view(product)
        session.delete(product)
        return view


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
        return views.product_view(_find(session, name))


@blueprint.get("/software")
def get_software() -> list[dict[str, Any]]:
    """Give the copies of one release that computers have, shall have or shall lose."""
    url = check_url(request.args.get("url"), "url")
    with context().reading() as session:
        found = session.scalars(select(Software).where(Software.url == url).order_by(Software.id))
        return [views.software_view(each) for each in found]


def _find(session: Session, name: str) -> Product:
    """Return a product.

    :raises UnknownError: when the catalog has none of that name.
    """
    product = session.get(Product, name)
    if product is None:
        known = ", ".join(session.scalars(select(Product.name).order_by(Product.name)))
        raise UnknownError(
            f"there is no product {shown(name)} in the catalog",
            f"the products are: {known}"
            if known
            else "put it there with `slapos cluster product add`",
        )
    return product


def _product_name(name: str) -> str:
    """Return a name by which a product can be requested: no path and no URL."""
    if "/" in name:
        raise InvalidRequestError(
            f"the product's name {shown(name)} has a slash",
            "use a name without: a slash makes a URL",
        )
    return check_name(name, "the product's name")
