# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep history, plans, access, shared instances and what computers are like."""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"

_ROW = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add columns to the tables of version 2, all of which are in SQLite files, then new tables."""
    for column in ("provider", "network"):
        op.add_column("computer", _text(column))
    op.add_column("computer", _text("state", "eligible"))
    op.add_column(
        "computer", sa.Column("coordinates", sa.JSON, nullable=False, server_default="[]")
    )
    op.add_column("computer", sa.Column("measured", sa.JSON, nullable=False, server_default="{}"))
    op.add_column(
        "computer", sa.Column("revision", sa.BigInteger, nullable=False, server_default="0")
    )
    op.create_index("ix_computer_revision", "computer", ["revision"])
    op.add_column("instance", sa.Column("shared", sa.Boolean, nullable=False, server_default="0"))
    # Alembic would add the reference in a statement of its own, which SQLite does not know.
    op.execute("ALTER TABLE instance ADD COLUMN provider_id INTEGER REFERENCES instance (id)")
    op.create_index("ix_instance_provider_id", "instance", ["provider_id"])
    _create_history()
    _create_access()
    op.execute("DELETE FROM property WHERE name = 'schema_version'")
    op.execute(
        "INSERT INTO property (name, value) SELECT 'last_number', 0"
        " WHERE NOT EXISTS (SELECT 1 FROM property WHERE name = 'last_number')"
    )


def _create_history() -> None:
    """Create the tables of changes and plans."""
    op.create_table(
        "change",
        sa.Column("id", _ROW, primary_key=True, autoincrement=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        _text("who"),
        _text("kind"),
        _text("subject"),
        sa.Column("tree_id", sa.Integer, nullable=False, server_default="0"),
        _text("action"),
        sa.Column("before", sa.JSON, nullable=False),
        sa.Column("after", sa.JSON, nullable=False),
    )
    op.create_index("change_by_subject", "change", ["kind", "subject", "id"])
    op.create_index("change_by_tree", "change", ["tree_id", "id"])
    op.create_table(
        "plan",
        sa.Column("id", _ROW, primary_key=True, autoincrement=True),
        sa.Column("created_at", sa.Double, nullable=False),
        _text("created_by"),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("effects", sa.JSON, nullable=False),
        sa.Column("applied_at", sa.Double),
    )


def _create_access() -> None:
    """Create the tables of users, tokens and certificates."""
    op.create_table(
        "user",
        sa.Column("name", sa.String(255), primary_key=True),
        _text("role"),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("removed_at", sa.Double),
    )
    op.create_table(
        "token",
        sa.Column("digest", sa.String(64), primary_key=True),
        _text("kind"),
        _text("name"),
        _text("role"),
        sa.Column("labels", sa.JSON, nullable=False),
        _text("created_by"),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double),
        _text("public_key"),
    )
    op.create_table(
        "certificate",
        sa.Column("serial", sa.String(64), primary_key=True),
        _text("kind"),
        _text("name"),
        _text("fingerprint"),
        sa.Column("issued_at", sa.Double, nullable=False),
        sa.Column("not_after", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double),
        _text("reason"),
    )
    op.create_index("ix_certificate_name", "certificate", ["name"])


def _text(name: str, default: str = "") -> sa.Column[str]:
    """Return a column of short texts."""
    return sa.Column(name, sa.String(255), nullable=False, server_default=default)
