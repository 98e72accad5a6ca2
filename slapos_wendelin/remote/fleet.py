# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many hosts at once, so many and no more; what befalls one does not touch the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from slapos_wendelin.remote import ssh
from slapos_wendelin.remote.errors import HostError
from slapos_wendelin.remote.target import Address

#: Hosts that are worked on at once, unless somebody says otherwise.
PARALLEL = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_all(
    items: Sequence[Item], work: Callable[[Item], Result], parallel: int = PARALLEL
) -> list[Result]:
    """Return what the work returns for each item, in the order of the items.

    When it is interrupted all connections are dropped: hosts end what is under way.
    """
    with ThreadPoolExecutor(max(1, min(parallel, len(items)))) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            ssh.drop_all()
            raise


class Names:
    """The names of the computers that one command makes: each is for one host."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken: dict[str, Address] = {}

    def take(self, name: str, address: Address) -> None:
        """Take a name for a host.

        :raises HostError: when another host has it.
        """
        with self._guard:
            other = self._taken.setdefault(name, address)
        if other is not address:
            raise HostError(
                f"{other} is to be the computer {name} as well",
                "give them names of their own in the inventory",
            )
