# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scheduler of dask, with its web page at an address of IPv6.

``python -m slapos_wendelin.neo.dask_scheduler`` is ``dask scheduler`` whose option
``--dashboard-address``
takes ``[ADDRESS]:PORT`` too.
"""

from __future__ import annotations

from typing import Any

from distributed import node
from distributed.cli.dask_scheduler import main

_understood = node.clean_dashboard_address


def page_addresses(given: Any, default_listen_ip: str = "") -> list[dict[str, Any]]:
    """Return the addresses of the page as dask does, also of one with brackets."""
    if isinstance(given, str) and given.startswith("["):
        host, _, port = given.rpartition(":")
        return [{"address": host.strip("[]"), "port": int(port)}]
    return _understood(given, default_listen_ip)


if __name__ == "__main__":
    node.clean_dashboard_address = page_addresses
    main()
