# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recipe that says at which address the programs of a partition listen."""

from __future__ import annotations

from typing import Any

from zc.buildout import UserError


class Recipe:
    """Give ``address``: the partition's address of IPv4, or that of IPv6 where it has no other.

    Options, as slapos.cookbook:slapconfiguration gives them: ``ipv4`` and ``ipv6``. An address of
    IPv6 is in brackets, so that a port can follow.
    """

    def __init__(self, _buildout: Any, name: str, options: Any) -> None:
        """Choose the address.

        :raises UserError: when there is none.
        """
        four, six = sorted(options["ipv4"]), sorted(options["ipv6"])
        if not four and not six:
            raise UserError(
                f"[{name}]: the partition has no address: give its computer some"
                " (slapos computer join --addresses) and let it be formatted again"
            )
        options["address"] = four[0] if four else f"[{six[0]}]"

    def install(self) -> list[str]:
        """Install nothing."""
        return []

    update = install
