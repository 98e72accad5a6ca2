# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep which changes a computer had read when it reported."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Add the two numbers."""
    for table, column in (("computer", "fetched_number"), ("instance", "reported_number")):
        op.add_column(table, sa.Column(column, sa.BigInteger, nullable=False, server_default="0"))
