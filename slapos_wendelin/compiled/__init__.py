# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiled parts that one computer has built, signed and kept for all that are like it."""
