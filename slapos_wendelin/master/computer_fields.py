# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The values that are known of a computer, and which of them can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from slapos_wendelin.master.checks import check_name, check_url, shown
from slapos_wendelin.master.errors import InvalidRequestError

ELIGIBLE = "eligible"
CORDONED = "cordoned"
DRAINING = "draining"
REMOVED = "removed"

#: The states that an operator can give a computer; removal is a step of its own.
SETTABLE_STATES = (ELIGIBLE, CORDONED, DRAINING)

#: The sizes of a computer and what is in use of them, in bytes but for the cores.
SIZES = ("cpu_core", "memory_size", "storage_capacity")
USES = ("memory_used", "storage_used")

#: Of what is measured, what decides whether an instance can be placed there.
DECISIVE = (*SIZES, "capabilities", "left")

#: What a computer tells of an instance whose data a partition holds, unknown to the master.
_OCCUPANT = ("guid", "instance", "root")

#: The load averages over 1, 5 and 15 minutes.
_LOADS = 3

#: How many programs that have died a computer may tell of.
_MOST_DEATHS = 100

_LATITUDE, _LONGITUDE = 90.0, 180.0  # degrees

#: A time, in seconds since the epoch, that cannot be told any more.
_END_OF_TIME = 2.0**36

#: All of something, in hundredths.
_ALL = 100

#: Sizes that no computer has: a number beyond is a mistake.
_LARGEST = 2**60


def check_measurement(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a computer measured of itself.

    :raises InvalidRequestError: when something is no size, or no load.
    """
    checked: dict[str, Any] = {}
    for name in (*SIZES, *USES):
        if name in values:
            checked[name] = _size(name, values[name])
    for name in set(SIZES) - checked.keys():
        raise InvalidRequestError(f"the measurement lacks {name!r}", f"send {', '.join(SIZES)}")
    if "load" in values:
        checked["load"] = _load(values["load"])
    checked["deaths"] = _deaths(values.get("deaths", []))
    if left := _left(values.get("left", {})):
        checked["left"] = left
    return checked


def check_build(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a computer is with the build of a release: url, stage and percent.

    :raises InvalidRequestError: when it cannot be there.
    """
    percent = values.get("percent")
    if percent is not None and (type(percent) is not int or not 0 <= percent <= _ALL):
        raise InvalidRequestError(
            f"percent is {shown(percent)}", f"send a whole number from 0 to {_ALL}, or null"
        )
    return {
        "url": check_url(values.get("url"), "url"),
        "stage": check_name(values.get("stage"), "stage"),
        "percent": percent,
    }


def _left(value: object) -> dict[str, dict[str, str]]:
    """Return the partitions that hold data unknown to the master, and whose."""
    remedy = f"send {{PARTITION: {{{', '.join(_OCCUPANT)}}}}}"
    if not isinstance(value, dict):
        raise InvalidRequestError(f"left is {shown(value)}", remedy)
    checked: dict[str, dict[str, str]] = {}
    for name, occupant in value.items():
        if not isinstance(occupant, dict) or occupant.keys() != set(_OCCUPANT):
            raise InvalidRequestError(f"left of {shown(name)} is {shown(occupant)}", remedy)
        texts = {key: check_name(occupant[key], f"{key} of {name}") for key in _OCCUPANT}
        checked[check_name(name, "partition")] = texts
    return checked


def _place_name(name: str, value: object) -> str | None:
    """Return the name of a data center, a region, a provider or a network, or nothing."""
    if value is None:
        return None
    if value == "":
        return ""
    text = check_name(value, name)
    if "," in text or " " in text:
        raise InvalidRequestError(f"{name} is {text!r}", "use a name without commas and spaces")
    return text


def _address(name: str, value: object) -> str | None:
    """Return the address of a computer, or nothing."""
    if value is None:
        return None
    return "" if value == "" else check_name(value, name)


def _coordinates(name: str, value: object) -> list[float] | None:
    """Return latitude and longitude in degrees; an empty object takes them away."""
    remedy = 'send {"latitude": -90 to 90, "longitude": -180 to 180}, in degrees, or {}'
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) not in ({"latitude", "longitude"}, set()):
        raise InvalidRequestError(f"{name} is {shown(value)}", remedy)
    checked = []
    for key, largest in (("latitude", _LATITUDE), ("longitude", _LONGITUDE)):
        if key not in value:
            continue
        degrees = value[key]
        if not _is_number(degrees) or abs(degrees) > largest:
            raise InvalidRequestError(f"{key} is {shown(degrees)}", remedy)
        checked.append(float(degrees))
    return checked


def _labels(name: str, value: object) -> dict[str, str] | None:
    """Return labels: texts with names."""
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise InvalidRequestError(f"{name} is {shown(value)}", "send an object of texts")
    return {_label_name(key): _label_value(key, each) for key, each in value.items()}


def _label_changes(name: str, value: object) -> dict[str, str | None]:
    """Return labels to set, and with nothing as value those to take away."""
    given: dict[str, Any] = value if isinstance(value, dict) else {}
    texts = {key: each for key, each in given.items() if each is not None}
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in texts.values()):
        raise InvalidRequestError(
            f"{name} is {shown(value)}", "send an object of texts, null to take a label away"
        )
    return {
        _label_name(key): None if each is None else _label_value(key, each)
        for key, each in given.items()
    }


def _label_name(name: str) -> str:
    """Return the name of a label."""
    return check_name(name, "the name of a label")


def _label_value(name: str, value: str) -> str:
    """Return the value of a label, which may be empty."""
    return check_name(value, f"label {name}") if value else ""


def _state(name: str, value: object) -> str | None:
    """Return a state that an operator can give a computer."""
    if value is None:
        return None
    if value == REMOVED:
        raise InvalidRequestError(
            f"{name} is {value!r}", "remove the computer with `slapos computer remove`"
        )
    if value not in SETTABLE_STATES:
        raise InvalidRequestError(
            f"{name} is {shown(value)}", f"use one of {', '.join(SETTABLE_STATES)}"
        )
    return str(value)


def _size(name: str, value: object) -> int:
    """Return a size that was measured."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise InvalidRequestError(
            f"{name} is {shown(value)}", "send a whole number of cores or bytes, 0 or more"
        )
    return value


def _load(value: object) -> list[float]:
    """Return load averages."""
    is_load = (
        isinstance(value, list)
        and len(value) == _LOADS
        and all(_is_number(each) and each >= 0 for each in value)
    )
    if not is_load:
        raise InvalidRequestError(
            f"load is {shown(value)}", "send the averages over 1, 5 and 15 minutes"
        )
    return [float(each) for each in value] if isinstance(value, list) else []


def _deaths(value: object) -> list[dict[str, Any]]:
    """Return how often programs have died."""
    if not isinstance(value, list) or len(value) > _MOST_DEATHS:
        raise InvalidRequestError(
            f"deaths is {shown(value)}", f"send a list of {_MOST_DEATHS} programs at most"
        )
    return [_death(each) for each in value]


def _death(value: object) -> dict[str, Any]:
    """Return how often a program has died, and when it did last."""
    names = ("partition", "program", "count", "last")
    if not isinstance(value, dict) or set(value) != set(names):
        raise InvalidRequestError(
            f"deaths has {shown(value)}", f"send objects of {', '.join(names)}"
        )
    last = value["last"]
    if not _is_number(last) or not 0 <= last < _END_OF_TIME:
        raise InvalidRequestError(f"last is {shown(last)}", "send seconds since the epoch")
    return {
        "partition": check_name(value["partition"], "partition"),
        "program": check_name(value["program"], "program"),
        "count": _size("count", value["count"]),
        "last": float(last),
    }


def _is_number(value: object) -> bool:
    """Return whether a value is a number that numbers can be compared with."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


#: What an operator says of a computer, and how each value is checked.
FIELDS: Mapping[str, Callable[[str, object], Any]] = {
    "datacenter": _place_name,
    "region": _place_name,
    "provider": _place_name,
    "network": _place_name,
    "coordinates": _coordinates,
    "labels": _labels,
    "label_changes": _label_changes,
    "address": _address,
    "state": _state,
}
