# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong with a host."""

from slapos_wendelin.errors import WendelinError


class HostError(WendelinError):
    """Something about a host has to be mended."""


class UnreachableHostError(HostError):
    """A host does not answer, or the connection to it was lost."""


class UnknownHostKeyError(HostError):
    """Nobody has said yet that a host's key is the right one."""


class ChangedHostKeyError(HostError):
    """A host shows another key than it did: it may be another machine that poses as it."""


class UnfitHostError(HostError):
    """A host lacks something that a computer needs.

    :param faults: all that it lacks.
    """

    def __init__(self, message: str, remedy: str, faults: tuple[str, ...]) -> None:
        super().__init__(message, remedy)
        self.faults = faults
