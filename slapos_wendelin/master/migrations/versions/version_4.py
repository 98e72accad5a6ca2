# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep what operators ask of the NEO of clusters."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"

#: What a long text is on MariaDB, whose plain TEXT ends at 64 KiB.
_LOG = sa.Text().with_variant(sa.Text(1 << 20), "mysql", "mariadb")

#: What holds names in every character, as the other tables do.
_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (
        ("engine", "InnoDB"),
        ("charset", "utf8mb4"),
        ("collate", "utf8mb4_nopad_bin"),
    )
}


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "operation",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("tree_id", sa.Integer, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("is_look", sa.Boolean, nullable=False),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("created_by", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("keeper", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("taken_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("progress", sa.JSON, nullable=False),
        sa.Column("result", sa.JSON, nullable=False),
        sa.Column("error", _LOG, nullable=False),
        sa.Column("remedy", _LOG, nullable=False),
        **_OPTIONS,
    )
    op.create_index("operation_by_tree", "operation", ["tree_id", "id"])
    op.create_index("ix_operation_number", "operation", ["number"])
