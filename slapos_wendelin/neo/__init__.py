# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays in NEO and helpers for clients of a NEO cluster."""
