# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long tests wait.

A limit says 'never': a busy machine may take many times as long as an idle one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

#: Seconds for one command of ./wendelin, and for anything else that is waited for.
COMMAND_TIME, PATIENCE = 1200.0, 300.0

Answer = TypeVar("Answer")


def wait_for(ask: Callable[[], Answer | None], what: str, seconds: float = PATIENCE) -> Answer:
    """Call *ask* until it returns something true; fail after *seconds*."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"{what}: not after {seconds:.0f} s"
        time.sleep(0.05)
    return answer
