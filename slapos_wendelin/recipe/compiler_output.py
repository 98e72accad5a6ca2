# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the output of ninja, make and compilers says: how far they are, and why they failed."""

import re
from collections.abc import Sequence

#: ``[12/345] ...`` is ninja's, ``[ 37%] ...`` that of makefiles that CMake wrote.
_NINJA = re.compile(r"\[(\d+)/(\d+)\] ")
_MAKE = re.compile(r"\[ *(\d+)%\] ")

_FAULT = re.compile(
    r"^FAILED: |\bfatal error:|\berror:|^CMake Error|undefined reference to|\*\*\* |"
    r"^patch: |\bhunks? FAILED"
)

#: What may be harmless too, so that the last of such lines is the fault if there is no other.
_DOUBTFUL = re.compile(r"No such file or directory|command not found|: not found$")

#: What compilers and linkers say when the kernel has ended them for want of memory.
_OUT_OF_MEMORY = re.compile(r"Killed signal|virtual memory exhausted|out of memory", re.IGNORECASE)

#: Lines of a failed program's output that its error repeats.
_SHOWN_LINES = 14

#: Lines longer than this are commands rather than messages.
_LONG = 400


def percentage(line: str) -> int | None:
    """Return how many hundredths of the steps are done, when a line says so."""
    steps = _NINJA.match(line)
    if steps and int(steps[2]):
        return 100 * int(steps[1]) // int(steps[2])
    share = _MAKE.match(line)
    return int(share[1]) if share else None


def useful_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines that say why a build failed: from the first fault on, else the last ones."""
    messages = [line for line in lines if line.strip() and len(line) <= _LONG]
    faults = [number for number, line in enumerate(messages) if _FAULT.search(line)]
    doubtful = [number for number, line in enumerate(messages) if _DOUBTFUL.search(line)]
    if not faults and not doubtful:
        return messages[-_SHOWN_LINES:]
    first = faults[0] if faults else doubtful[-1]
    return [line for line in messages[first : first + _SHOWN_LINES] if percentage(line) is None]


def is_out_of_memory(lines: Sequence[str]) -> bool:
    """Whether a compiler was ended because the machine has too little memory."""
    return any(_OUT_OF_MEMORY.search(line) for line in lines[-200:])


def is_out_of_space(lines: Sequence[str]) -> bool:
    """Whether a file could not be written because the disk is full."""
    return any("No space left" in line or "quota exceeded" in line for line in lines)
