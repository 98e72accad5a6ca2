# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recipe that says where a partition is."""

from __future__ import annotations

from typing import Any

from zc.buildout import UserError

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master.client import MasterClient, NotFoundError


class Recipe:
    """Give ``datacenter`` and ``region`` of the partition's computer, empty where nobody said them.

    ``alike`` is how many instances of the partition's software type are there, at least 1.

    Options, as for slapos.cookbook:slapconfiguration: ``url``, ``key``, ``cert``, ``computer`` and
    ``partition``. Another master than that of slapos_wendelin cannot say where a computer is.
    """

    def __init__(self, _buildout: Any, _name: str, options: Any) -> None:
        """Ask the master.

        :raises UserError: when it does not answer.
        """
        try:
            with MasterClient(
                options["url"],
                certificate=options.get("cert") or None,
                key=options.get("key") or None,
            ) as master:
                found = master.location(options["computer"], options["partition"])
        except NotFoundError:
            found = {}
        except WendelinError as error:
            raise UserError(str(error)) from error
        options["datacenter"] = found.get("datacenter", "")
        options["region"] = found.get("region", "")
        options["alike"] = str(max(1, found.get("alike", 1)))

    def install(self) -> list[str]:
        """Install nothing."""
        return []

    update = install
