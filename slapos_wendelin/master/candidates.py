# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Computers and instances as placement sees them: plain data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from slapos_wendelin.master.quantities import read_frequency

ELIGIBLE = "eligible"
CORDONED = "cordoned"
DRAINING = "draining"
LOST = "lost"

#: The states of a computer. Only an eligible one takes new instances.
COMPUTER_STATES = (ELIGIBLE, CORDONED, DRAINING, LOST)

#: The states in which the instances that are there may stay.
STATES_THAT_HOST = (ELIGIBLE, CORDONED)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A computer as placement sees it. Nothing in it may change afterwards."""

    reference: str
    datacenter: str = ""
    region: str = ""
    #: The registry's free labels, and those that SLA keys such as storage_type read.
    labels: Mapping[str, str] = field(default_factory=dict)
    #: How many partitions it has in all.
    capacity: int = 0
    #: The partitions that hold no instance, not even one that is being destroyed.
    free: tuple[str, ...] = ()
    provider: str = ""
    network: str = ""
    #: What every partition of it can do.
    capabilities: tuple[str, ...] = ()
    #: What single partitions can do besides, as their formatting says.
    partition_capabilities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: The size of the whole computer, memory and disk in bytes; None while it is not measured.
    cores: int | None = None
    memory: int | None = None
    disk: int | None = None
    state: str = ELIGIBLE

    @property
    def is_open(self) -> bool:
        """Whether it takes a new instance at all."""
        return self.state == ELIGIBLE and bool(self.free)


@dataclass(frozen=True, slots=True)
class Member:
    """An instance of the same group, or tree, that has its place already."""

    computer: str
    datacenter: str
    network: str = ""


#: The size of a computer that an SLA key asks for; None while it is not known.
SIZES: dict[str, Callable[[Candidate], int | None]] = {
    "cpu_core": lambda each: each.cores,
    "cpu_frequency": lambda each: read_frequency(each.labels.get("cpu_frequency", "")),
    "memory_size": lambda each: each.memory,
    "storage_capacity": lambda each: each.disk,
}


def partitions_with(
    candidate: Candidate, capabilities: Iterable[str], partitions: Iterable[str]
) -> list[str]:
    """Return those of the partitions that have all the capabilities."""
    missing = set(capabilities).difference(candidate.capabilities)
    if not missing:
        return list(partitions)
    own = candidate.partition_capabilities
    return [each for each in partitions if missing.issubset(own.get(each, ()))]


@lru_cache(maxsize=4096)
def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sorting key by which slappart2 comes before slappart10."""
    return tuple(
        (1, int(piece), piece) if piece.isascii() and piece.isdigit() else (0, 0, piece)
        for piece in re.split(r"([0-9]+)", name)
        if piece
    )
