# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait for what takes milliseconds, or on a busy machine seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from slapos_wendelin.lab.errors import LabError

#: Seconds that anything may take, and seconds between two looks.
PATIENCE, INTERVAL = 240.0, 0.005

Answer = TypeVar("Answer")


def until(
    look: Callable[[], Answer], what: str, patience: float = PATIENCE, interval: float = INTERVAL
) -> Answer:
    """Call *look* until its answer is true; return that answer.

    Raises LabError, which names *what* was waited for, when *patience* seconds are over.
    """
    deadline = time.monotonic() + patience
    while not (answer := look()):
        if time.monotonic() > deadline:
            raise LabError(
                f"waited {patience:.0f} s in vain until {what}",
                "look at the load of this machine and at the lab's logs",
            )
        time.sleep(interval)
    return answer
