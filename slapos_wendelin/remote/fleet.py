# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many hosts at once, so many and no more; what befalls one does not touch the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

#: Hosts that are worked on at once, unless somebody says otherwise.
PARALLEL = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_all(
    items: Sequence[Item], work: Callable[[Item], Result], parallel: int = PARALLEL
) -> list[Result]:
    """Return what the work returns for each item, in the order of the items."""
    with ThreadPoolExecutor(max(1, min(parallel, len(items)))) as pool:
        return list(pool.map(work, items))
