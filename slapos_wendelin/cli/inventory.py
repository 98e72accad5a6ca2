# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many hosts in one file: data centers, their hosts, and what several have in common.

What is said of all stands in ``defaults``; a data center may say otherwise for its hosts, and a
host for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slapos_wendelin import parameters
from slapos_wendelin.cli import build_options
from slapos_wendelin.cli.parameters_file import ParametersFile
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.parameters import Fault, FaultyParametersError
from slapos_wendelin.remote.target import Target, check_addresses, parse_address, parse_jumps

_TEXT = {"type": "string", "minLength": 1}
_WORD = {"type": "string", "pattern": "^[^ ,]+$"}
_NAME = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"}
_LARGEST_PORT, _MANY_PARTITIONS = 65535, 1000

#: What may be said of all hosts, of those of a data center, and of one.
_COMMON: dict[str, Any] = {
    "user": _WORD,
    "port": {"type": "integer", "minimum": 1, "maximum": _LARGEST_PORT},
    "jump": _TEXT,
    "region": _WORD,
    "provider": _WORD,
    "network": _WORD,
    "partitions": {"type": "integer", "minimum": 1, "maximum": _MANY_PARTITIONS},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    **build_options.SCHEMA,
}
_HOST = {**_COMMON, "address": _TEXT, "name": _NAME, "addresses": _TEXT}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["datacenters"],
    "additionalProperties": False,
    "properties": {
        "defaults": {"type": "object", "additionalProperties": False, "properties": _COMMON},
        "datacenters": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": _WORD,
            "additionalProperties": {
                "type": "object",
                "required": ["hosts"],
                "additionalProperties": False,
                "properties": {
                    **_COMMON,
                    "hosts": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": ["object", "string"],
                            "required": ["address"],
                            "additionalProperties": False,
                            "properties": _HOST,
                        },
                    },
                },
            },
        },
    },
}

_REMEDY = "mend the inventory and repeat: nothing was done"


class InventoryError(ParameterError):
    """An inventory has faults."""


def read_inventory(path: Path) -> list[Target]:
    """Return the hosts of an inventory, in its order.

    :raises InventoryError: with every fault, its line, its value and what is allowed there.
    """
    document = ParametersFile(path)
    try:
        parameters.check(SCHEMA, document.values)
        return _targets(document.values)
    except FaultyParametersError as error:
        lines = [f"{document.place(fault.path)}: {fault}" for fault in error.faults]
        raise InventoryError("; ".join(lines), _REMEDY) from error


def _targets(inventory: Mapping[str, Any]) -> list[Target]:
    """Return the hosts; raise for what a schema cannot say."""
    targets: list[Target] = []
    faults: list[Fault] = []
    places: list[tuple[str | int, ...]] = []
    for datacenter, described in inventory["datacenters"].items():
        for number, host in enumerate(described["hosts"]):
            place = ("datacenters", datacenter, "hosts", number)
            own = {"address": host} if isinstance(host, str) else host
            values = _merged(inventory.get("defaults", {}), described, own)
            try:
                targets.append(_target(datacenter, values))
                places.append(place)
            except ParameterError as error:
                faults.append(Fault(place, str(error)))
    faults += _repeated(targets, places)
    if faults:
        raise FaultyParametersError(faults)
    return targets


def _merged(*levels: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a host; the nearest to it counts, labels are put together."""
    values: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for level in levels:
        values |= {key: each for key, each in level.items() if key != "hosts"}
        labels |= level.get("labels", {})
    return values | {"labels": labels}


def _target(datacenter: str, values: Mapping[str, Any]) -> Target:
    """Return one host."""
    address = parse_address(values["address"], "address")
    user, port = address.user or values.get("user"), address.port or values.get("port")
    addresses = values.get("addresses", "")
    check_addresses(addresses, values.get("partitions"), "addresses")
    return Target(
        address=type(address)(address.host, port, user),
        name=values.get("name", ""),
        jumps=parse_jumps(values.get("jump", ""), "jump"),
        datacenter=datacenter,
        labels=values["labels"],
        partitions=values.get("partitions"),
        addresses=addresses,
        builds=build_options.builds_in(values),
        **{key: values[key] for key in ("region", "provider", "network") if key in values},
    )


def _repeated(targets: list[Target], places: list[tuple[str | int, ...]]) -> list[Fault]:
    """Return a fault for each host, and each name, that stands there twice."""
    faults = []
    for key, read in (("address", _way), ("name", lambda each: each.name)):
        seen = Counter(read(each) for each in targets)
        faults += [
            Fault((*place, key), f"{read(each)!r} is given twice")
            for each, place in zip(targets, places, strict=True)
            if read(each) and seen[read(each)] > 1
        ]
    return faults


def _way(target: Target) -> str:
    """Return how a host is reached: behind other hosts, the same address is another host."""
    return " via ".join(map(str, (target.address, *target.jumps)))
