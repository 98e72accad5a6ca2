#!/usr/bin/env python3
# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure placement alone: one instance in clouds of up to ten thousand computers.

Each cloud has 50 data centers in 5 regions, and 100 partitions on each computer, half of them free
on average. Beside the index that the master keeps, a plain look at each computer answers the same
requests, and both must choose the same. benchmarks/README.md explains the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from slapos_wendelin.errors import ParameterError, WendelinError
from slapos_wendelin.master.placement import (
    Candidate,
    Decision,
    Fleet,
    Member,
    ServiceLevel,
    explain,
    place,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (100, 1000, 10_000)
PARTITIONS = 100
DATACENTERS = 50
REGIONS = 5
NETWORKS = 20
GROUP = 10
GIB = 2**30

#: One computer in so many has the rare label.
RARE = 100

#: The requests: what is asked for, by the name of the row.
REQUESTS: dict[str, dict[str, object]] = {
    "nothing asked": {},
    f"spread, {GROUP} of the group placed": {"spread": "datacenter", "group": "storage"},
    "one computer": {"computer_guid": "computer-00042"},
    "one data center": {"datacenter": "datacenter-07"},
    "one region": {"region": "region-3"},
    "a label that 1 % have": {"storage_type": "ssd"},
    "a label that 1 % have, spread": {
        "storage_type": "ssd",
        "spread": "datacenter",
        "group": "storage",
    },
    "a size that half have": {"memory_size": "128GiB"},
    "a size that the fullest 1 % have": {"memory_size": "1TiB"},
    "a label that the fullest 20 % have": {"label.load": "high"},
    "a network with none of the tree": {"mode": "unique_by_network"},
    "refused: no such label": {"storage_type": "tape"},
    "refused: nobody is so big": {"memory_size": "64TiB"},
}


def make_cloud(count: int, chance: random.Random) -> list[Candidate]:
    """Return computers in all data centers, the fullest of them the biggest."""
    names = tuple(f"slappart{index}" for index in range(PARTITIONS))
    cloud = []
    for number in range(count):
        free = chance.sample(names, chance.randrange(PARTITIONS + 1))
        datacenter = number % DATACENTERS
        cloud.append(
            Candidate(
                reference=f"computer-{number:05}",
                datacenter=f"datacenter-{datacenter:02}",
                region=f"region-{datacenter % REGIONS}",
                provider=f"provider-{datacenter % 3}",
                network=f"network-{number % NETWORKS}",
                labels={
                    "load": "high" if len(free) <= PARTITIONS // 5 else "low",
                    "rack": str(number // 20),
                    "storage_type": "ssd" if chance.randrange(RARE) == 0 else "hdd",
                },
                capacity=PARTITIONS,
                free=tuple(free),
                cores=chance.choice((8, 16, 32)),
                memory=chance.choice((64, 128)) * GIB,
                disk=chance.choice((500, 1000)) * GIB,
            )
        )
    taken = sorted((each for each in cloud if each.free), key=lambda each: len(each.free))
    for each in taken[: count // RARE]:
        number = int(each.reference.removeprefix("computer-"))
        cloud[number] = replace(each, memory=1024 * GIB)
    return cloud


def make_group(fleet: Fleet) -> list[Member]:
    """Place the group that the requests spread or keep apart."""
    level = ServiceLevel.parse({"spread": "datacenter", "group": "storage"})
    members: list[Member] = []
    for _ in range(GROUP):
        host = fleet[str(place(fleet, members, level).computer)]
        members.append(Member(host.reference, host.datacenter, host.network))
    return members


def seconds_of(call: Callable[[], object], rounds: int) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def check_choice(found: Decision, cloud: list[Candidate], members: list[Member], name: str) -> None:
    """Compare a decision with a look at each computer.

    :raises WendelinError: when they differ.
    """
    best = next(iter(explain(cloud, members, ServiceLevel.parse(REQUESTS[name]))))
    wanted = best.computer if best.eligible else None
    if found.computer != wanted:
        raise WendelinError(f"{name}: the index chose {found.computer}, the scan {wanted}")


def measure_cloud(count: int, rounds: int) -> dict[str, float]:
    """Measure one size of cloud; milliseconds by what is measured."""
    chance = random.Random(count)  # noqa: S311 (a cloud that is the same in each run)
    cloud = make_cloud(count, chance)
    start = time.perf_counter()
    fleet = Fleet(cloud)
    result = {"the index is built": time.perf_counter() - start}
    members = make_group(fleet)
    for name, sla in REQUESTS.items():
        level = ServiceLevel.parse(sla)
        check_choice(place(fleet, members, level), cloud, members, name)
        result[name] = seconds_of(lambda level=level: place(fleet, members, level), rounds)
    tape = ServiceLevel.parse({"storage_type": "tape"})
    result["refused, with the first 12 reasons"] = seconds_of(
        lambda: place(fleet, members, tape).first_verdicts(12), rounds
    )
    result["refused, with the reasons of all"] = seconds_of(
        lambda: place(fleet, members, tape).verdicts, max(3, rounds // 50)
    )
    everything = ServiceLevel.parse(REQUESTS["nothing asked"])
    result["nothing asked, each looked at"] = seconds_of(
        lambda: explain(cloud, members, everything), max(3, rounds // 50)
    )
    result["a partition is taken: put"] = seconds_of(lambda: take_one(fleet, chance), rounds)
    result["place and put, the cloud filling"] = seconds_of(
        lambda: place_and_take(fleet, members, everything), rounds
    )
    return {name: seconds * 1000 for name, seconds in result.items()}


def take_one(fleet: Fleet, chance: random.Random) -> None:
    """Let one computer have one partition fewer, or all again."""
    host = fleet[fleet.references[chance.randrange(len(fleet))]]
    fleet.put(replace(host, free=host.free[1:] or host.free))


def place_and_take(fleet: Fleet, members: list[Member], level: ServiceLevel) -> None:
    """Place an instance and take its partition."""
    decision = place(fleet, members, level)
    host = fleet[str(decision.computer)]
    fleet.put(replace(host, free=tuple(p for p in host.free if p != decision.partition)))


def benchmark(sizes: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Measure all sizes."""
    return {
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "partitions": PARTITIONS,
        "datacenters": DATACENTERS,
        "rounds": rounds,
        "milliseconds": {str(size): measure_cloud(size, rounds) for size in sizes},
    }


def show(result: dict[str, Any]) -> None:
    """Print the medians as a table."""
    print(
        f"milliseconds, medians of {result['rounds']}; {result['partitions']} partitions on each"
        f" computer, {result['datacenters']} data centers; {result['processors']} processors,"
        f" load average {result['load_average']:.1f}, Python {result['python']}\n"
    )
    columns: dict[str, dict[str, float]] = result["milliseconds"]
    print("| | " + " | ".join(f"{int(size):,} computers" for size in columns) + " |")
    print("|---" + "|---:" * len(columns) + "|")
    for name in next(iter(columns.values())):
        cells = [f"{column[name]:.3f}" for column in columns.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=500, help="calls of each kind (500)")
    parser.add_argument(
        "--computers", type=int, action="append", help="this many only; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args()
    try:
        sizes = tuple(arguments.computers or SIZES)
        if arguments.rounds < 1:
            raise ParameterError(f"--rounds is {arguments.rounds}", "give at least 1")
        if min(sizes) < 1:
            raise ParameterError(f"--computers is {min(sizes)}", "give at least 1")
        result = benchmark(sizes, arguments.rounds)
    except WendelinError as error:
        print(f"placement: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("placement: stopped", file=sys.stderr)
        return 130
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
