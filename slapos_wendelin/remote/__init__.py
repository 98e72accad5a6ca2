# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make computers of hosts that are reached over SSH, many at once, and hosts of computers again."""
