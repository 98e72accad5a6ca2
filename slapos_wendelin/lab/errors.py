# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of the lab."""

from slapos_wendelin.errors import WendelinError


class LabError(WendelinError):
    """Something in the lab is not as the caller takes it to be."""
