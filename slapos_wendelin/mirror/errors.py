# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of mirrors."""

from slapos_wendelin.errors import WendelinError


class MirrorError(WendelinError):
    """A mirror is incomplete, damaged or cannot be reached."""
