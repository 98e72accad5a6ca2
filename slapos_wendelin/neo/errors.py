# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors that users of arrays meet."""

from slapos_wendelin.errors import WendelinError


class ArrayError(WendelinError):
    """An array cannot be made, found or changed as asked."""


class DatabaseError(WendelinError):
    """A database cannot be opened: its address is wrong or lacks something."""


class StorageUnavailableError(WendelinError):
    """The storage stayed away, or conflicts went on, for longer than the caller wanted to wait."""


class WorkersError(WendelinError):
    """The dask workers cannot be reached, or a task cannot be done by them."""


class NotebookError(WendelinError):
    """Notebooks cannot be served where they are to be."""


class OperationError(WendelinError):
    """NEO cannot do what an operator asks for, or not now."""


class ChannelError(WendelinError):
    """The master cannot be asked what to do, or refuses what it is told.

    :param status: the HTTP status of its answer; 0 when there was none.
    """

    def __init__(self, message: str, remedy: str = "", status: int = 0) -> None:
        super().__init__(message, remedy)
        self.status = status
