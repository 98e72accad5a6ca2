# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The /v1 endpoints: JSON in, JSON out."""

from __future__ import annotations

from typing import Any

from flask import Blueprint
from sqlalchemy import text

from slapos_wendelin.master import views
from slapos_wendelin.master.context import context

blueprint = Blueprint("api", __name__, url_prefix="/v1")


@blueprint.get("/health")
def health() -> dict[str, Any]:
    """Say that the master answers and reads its database."""
    with context().reading() as session:
        session.execute(text("SELECT 1"))
    return {"status": "ok"}


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
