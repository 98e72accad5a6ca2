# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be wrong with the MariaDB of a storage node."""

from slapos_wendelin.errors import WendelinError


class DataFolderError(WendelinError):
    """The data folder is not what this server may be started on."""


class ServerError(WendelinError):
    """A program of MariaDB has failed."""
