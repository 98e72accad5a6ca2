# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error that buildout prints as one line."""

from zc.buildout import UserError

from slapos_wendelin.errors import WendelinError


class ProfileError(WendelinError, UserError):
    """A profile, a file it names or what it builds is wrong: buildout stops and prints it."""
