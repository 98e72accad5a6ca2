# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SLA of a request: which keys there are, and what their values mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from slapos_wendelin.master.checks import check_name, shown
from slapos_wendelin.master.errors import InvalidRequestError
from slapos_wendelin.master.quantities import read_bytes, read_count, read_frequency

#: What stands before the name of a label in an SLA key.
LABEL_PREFIX = "label."

#: The keys that ask for a value of the computer's label of the same name.
LABEL_KEYS = (
    "cpu_type",
    "local_area_network_type",
    "memory_type",
    "storage_interface",
    "storage_redundancy",
    "storage_type",
)

#: The keys that ask for a size of at least so much: how each is read, and what it takes.
SIZE_KEYS: dict[str, tuple[Callable[[str], int | None], str]] = {
    "cpu_core": (read_count, "give a whole number of cores, such as 4"),
    "cpu_frequency": (read_frequency, "give a frequency, such as 2.4GHz, or a number of MHz"),
    "memory_size": (read_bytes, "give at least 1 MiB with its unit, such as 4GiB, or in bytes"),
    "storage_capacity": (
        read_bytes,
        "give at least 1 MiB with its unit, such as 500GB, or in bytes",
    ),
}

#: The values of ``mode``: no two instances of the group, or tree, share a network or a computer.
UNIQUE_BY_NETWORK = "unique_by_network"
UNIQUE_BY_COMPUTER = "unique_by_computer"

_CHOICES = {
    "spread": ("datacenter",),
    "mode": (UNIQUE_BY_COMPUTER, UNIQUE_BY_NETWORK),
}

#: The SLA keys that a request may carry, besides ``label.NAME``.
SLA_KEYS = (
    "computer_guid",
    "datacenter",
    "region",
    "provider",
    "network_guid",
    "instance_guid",
    "group",
    *_CHOICES,
    "capability",
    *SIZE_KEYS,
    *LABEL_KEYS,
)


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """Where a request allows its instance to go."""

    computer_guid: str = ""
    datacenters: tuple[str, ...] = ()
    region: str = ""
    provider: str = ""
    network_guid: str = ""
    #: The instance beside which this one shall be, on the same computer.
    instance_guid: str = ""
    #: The computer of that instance, which the caller looks up: see :meth:`beside`.
    instance_computer: str = ""
    #: The name of the instances that are kept apart; empty for those of the tree.
    group: str = ""
    spread: str = ""
    mode: str = ""
    capabilities: tuple[str, ...] = ()
    #: Pairs of SLA key and the value that the label of this name must have.
    labels: tuple[tuple[str, str], ...] = ()
    #: Pairs of SLA key and the least size.
    sizes: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, sla: Mapping[str, object]) -> ServiceLevel:
        """Read the SLA of a request. A blank value asks for nothing.

        :raises InvalidRequestError: for a key that does not exist or a value that is none.
        """
        _check_keys(sla)
        asked = {key: value for key, value in sla.items() if not _is_blank(value)}
        group = _text(asked, "group")
        spread, mode = _choice(asked, "spread"), _choice(asked, "mode")
        if spread and not group:
            raise InvalidRequestError(
                f"SLA key 'spread' is {spread!r} but there is no 'group'",
                "add 'group', the name that the instances to spread have in common",
            )
        labels = _labels(asked)
        if group and not spread and not mode:
            labels = (("group", group), *labels)
            group = ""
        return cls(
            computer_guid=_text(asked, "computer_guid"),
            datacenters=_several(asked, "datacenter", r"[,\s]+"),
            region=_text(asked, "region"),
            provider=_text(asked, "provider"),
            network_guid=_text(asked, "network_guid"),
            instance_guid=_text(asked, "instance_guid"),
            group=group,
            spread=spread,
            mode=mode,
            capabilities=_several(asked, "capability", r"[,\n]"),
            labels=labels,
            sizes=tuple((key, _size(asked, key)) for key in SIZE_KEYS if key in asked),
        )

    @property
    def keeps_apart(self) -> bool:
        """Whether the places of the group, or of the tree, matter."""
        return bool(self.spread or self.mode)

    def beside(self, computer: str) -> ServiceLevel:
        """Return this service level with the computer on which ``instance_guid`` is."""
        return replace(self, instance_computer=computer)


def kept_apart_as(sla: Mapping[str, object]) -> str:
    """Return the group that an SLA, once parsed without error, keeps apart; empty for none."""
    if _is_blank(sla.get("spread")) and _is_blank(sla.get("mode")):
        return ""
    group = sla.get("group")
    return group.strip() if isinstance(group, str) else ""


def label_name(key: str) -> str:
    """Return the name of the label that an SLA key reads."""
    return key.removeprefix(LABEL_PREFIX)


def _check_keys(sla: Mapping[str, object]) -> None:
    """Refuse keys that do not exist."""
    for key in sorted(sla, key=str):
        known = key in SLA_KEYS or (
            isinstance(key, str) and key.startswith(LABEL_PREFIX) and key != LABEL_PREFIX
        )
        if not known:
            raise InvalidRequestError(
                f"unknown SLA key {shown(key)}",
                f"the known ones are {', '.join(SLA_KEYS)} and {LABEL_PREFIX}NAME",
            )


def _labels(asked: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return the labels that are asked for, in the order of the keys."""
    keys = sorted(key for key in asked if key in LABEL_KEYS or key.startswith(LABEL_PREFIX))
    for key in keys:
        check_name(label_name(key), "the name of a label in the SLA")
    return tuple((key, _text(asked, key)) for key in keys)


def _is_blank(value: object) -> bool:
    """Return whether a value asks for nothing, as profiles do that leave an option empty."""
    return value is None or value in ([], ()) or (isinstance(value, str) and not value.strip())


def _text(asked: Mapping[str, object], key: str) -> str:
    """Return the value of an SLA key that is one name."""
    return _name(asked[key], key) if key in asked else ""


def _name(value: object, key: str) -> str:
    """Return a name that is the value of a key, or one of several."""
    return check_name(value.strip() if isinstance(value, str) else value, f"SLA key {key!r}")


def _choice(asked: Mapping[str, object], key: str) -> str:
    """Return the value of a key that takes few."""
    value = _text(asked, key)
    if value and value not in _CHOICES[key]:
        raise InvalidRequestError(
            f"SLA key {key!r} is {shown(value)}", f"use {' or '.join(map(repr, _CHOICES[key]))}"
        )
    return value


def _several(asked: Mapping[str, object], key: str, separator: str) -> tuple[str, ...]:
    """Return the names of a list, or of a text with separators, each once."""
    value: Any = asked.get(key, ())
    if isinstance(value, str):
        value = re.split(separator, value)
    if not isinstance(value, list | tuple):
        raise InvalidRequestError(
            f"SLA key {key!r} is {shown(value)}", "give one name, or several with commas"
        )
    names = [_name(each, key) for each in value if not _is_blank(each)]
    if key in asked and not names:
        raise InvalidRequestError(
            f"SLA key {key!r} is {shown(asked[key])}", "give one name, or several with commas"
        )
    return tuple(dict.fromkeys(names))


def _size(asked: Mapping[str, object], key: str) -> int:
    """Return the value of a key that asks for at least so much."""
    read, remedy = SIZE_KEYS[key]
    value = asked[key]
    text = str(value) if isinstance(value, int | float) else value
    size = read(text.strip()) if isinstance(text, str) and not isinstance(value, bool) else None
    if size is None:
        raise InvalidRequestError(f"SLA key {key!r} is {shown(value)}", remedy)
    return size
