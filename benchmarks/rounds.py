# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What benchmarks of several rounds have in common."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NoReturn

#: By what was measured, the values of each round.
Rounds = Mapping[str, Sequence[Mapping[str, float]]]


def medians(figures: Mapping[str, Rounds]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the medians of the rounds of each that is compared."""
    return {
        name: {
            what: {key: statistics.median(each[key] for each in values) for key in values[0]}
            for what, values in measured.items()
        }
        for name, measured in figures.items()
    }


def interrupt(*_: object) -> NoReturn:
    """End at SIGTERM as by Ctrl-C, so that all that was started ends too."""
    raise KeyboardInterrupt
