# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that is killed before one of its steps on files."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

_STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")


def killed_before_step(number: int, work: Callable[[Callable[[], None]], object]) -> bool:
    """Work in a process that is killed before its step on files of that number.

    :param work: is given what it has to call to let the steps be counted from then on.

    Return whether the process came to that step.
    """
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left = number

    def count(event: str, _arguments: object) -> None:
        nonlocal left
        if event in _STEPS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        work(lambda: sys.addaudithook(count))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
