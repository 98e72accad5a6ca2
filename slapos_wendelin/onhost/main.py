# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do on this host what the joining machine wants, in one session."""

from __future__ import annotations

import os
import traceback
from typing import Any

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.onhost import session as sessions
from slapos_wendelin.onhost.joining import Joining
from slapos_wendelin.onhost.leaving import leave


def main(order: dict[str, Any]) -> int:
    """Do it, and tell what happens; return the exit status."""
    os.umask(0o022)
    # Nothing here depends on what the user of the session has set.
    for name in [each for each in os.environ if each.startswith(("PYTHON", "SLAPOS_"))]:
        del os.environ[name]
    # Caches and the like are gone with the rest when the computer leaves.
    os.environ["HOME"] = f"{order['data']}/home"
    session = sessions.standard()
    try:
        with session.held(order["who"]):
            if order["action"] == "join":
                result = Joining(session, order).run()
            else:
                result = leave(session, order)
    except WendelinError as error:
        session.say("failed", message=error.message, remedy=error.remedy)
        return 1
    except Exception as error:
        told = traceback.format_exc(limit=-3)
        session.say("failed", message=f"{type(error).__name__}: {error}", remedy="", trace=told)
        return 1
    session.say("result", **result)
    return 0
