# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Prometheus reads the metrics."""

from __future__ import annotations

from flask import Blueprint, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from slapos_wendelin.master.context import context

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Give all metrics in Prometheus's text format."""
    return Response(
        generate_latest(context().metrics.registry), content_type=CONTENT_TYPE_PLAIN_0_0_4
    )
