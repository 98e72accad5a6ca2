# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The slap master: computers, data centers, placement and requests."""

import logging

# It tells which parts of it are loaded, and at each start which kind of database it meets.
logging.getLogger("alembic").setLevel(logging.WARNING)
