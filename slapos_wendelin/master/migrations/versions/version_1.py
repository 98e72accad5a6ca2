# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first tables; they exist in old SQLite files only, so nothing makes them any more."""

revision = "1"
down_revision = None


def upgrade() -> None:
    """Do nothing: new databases are made as the newest version."""
