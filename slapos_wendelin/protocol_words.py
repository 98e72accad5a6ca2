# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words that the master and the agents of computers add to the slap protocol."""

from __future__ import annotations

#: Parameters of what holds a partition until it is wiped: the guid of the instance that has left
#: it, and its last change there, as slapgrid's timestamp.
LEFT_BY, LEFT_AT = "left_by", "left_at"
