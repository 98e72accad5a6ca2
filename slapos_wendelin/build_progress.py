# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far the build of a release is: read from what buildout says, kept, told to people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Said by buildout of each part in turn, and by the recipe that compiles.
_PART = re.compile(r"(?:Installing|Updating) (\S{1,100})\.$")
_BEGINNING = re.compile(r"(\S{1,100}): compiling with \d+ jobs")
_SHARE = re.compile(r"(\S{1,100}): compiling: (\d{1,2}|100) %(?: |$)")

#: Begins what buildout says of what has ended it.
_ERROR = "Error: "


@dataclass(frozen=True)
class Progress:
    """Where a build is."""

    #: The part that is being made; empty before the first one.
    stage: str = ""
    #: How much of it is done, in hundredths; None where it does not say.
    percent: int | None = None

    def after(self, line: str) -> Progress:
        """Return where a build is that has said one more line."""
        if part := _PART.match(line):
            return Progress(part[1])
        if begun := _BEGINNING.match(line):
            return Progress(begun[1], 0)
        if share := _SHARE.match(line):
            return Progress(share[1], int(share[2]))
        return self

    def __str__(self) -> str:
        if not self.stage or self.percent is None:
            return self.stage
        return f"{self.stage} {self.percent} %"


def fault_of(error: str) -> str:
    """Return why a build has failed, in one line, from all that it said.

    It is what buildout says at its end: of the lines of a compiler the one with the fault, and
    where the others are. Of anything else it is the last line.
    """
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    begins = [number for number, line in enumerate(lines) if line.startswith(_ERROR)]
    if not begins:
        return lines[-1] if lines else ""
    first, *rest = lines[begins[-1] :]
    remedy = [rest.pop()] if rest and rest[-1].startswith("(") else []
    fault = next((line for line in rest if "error" in line.lower()), rest[0] if rest else "")
    return " ".join(each for each in (first.removeprefix(_ERROR), fault, *remedy) if each)


def described(state: str, told: Mapping[str, Any] | None) -> str:
    """Return the state of a release in words, with how far its build is where that is known.

    :param told: ``stage`` and ``percent``.
    """
    where = str(Progress(told["stage"], told["percent"])) if told else ""
    return f"{state}: {where}" if where else state
