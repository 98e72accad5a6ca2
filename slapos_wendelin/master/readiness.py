# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Telling systemd how far a service is, as sd_notify(3) says."""

from __future__ import annotations

import logging
import os
import socket

READY, STOPPING = "READY=1", "STOPPING=1"

_log = logging.getLogger(__name__)


def tell(state: str) -> None:
    """Tell the state to who started this process, if it wants to know and is still there."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        try:
            notifier.sendto(state.encode(), address)
        except OSError as error:
            # Nobody gains from a service that ends because nobody follows its start.
            _log.warning("not notified state=%s error=%s", state, error.strerror)
