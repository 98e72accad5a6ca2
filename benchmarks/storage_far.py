#!/usr/bin/env python3
# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare NEO and ZEO between data centers that are near and far: the measures of storage.py.

The data centers are a lab's (root is needed). NEO has a master and a storage in each of the three,
ZEO its server in one. The client is in another one than the server or the primary master.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(1, str(Path(__file__).parents[1] / "tests" / "hosts"))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests" / "conformance"))

from neo_history import MODULES, MariaDB, running_neo
from neo_suite import build_environment
from storage_sizes import CLIENTS

from slapos_wendelin.errors import CommandError, WendelinError
from slapos_wendelin.lab import Host, Lab
from slapos_wendelin.lab.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where the hosts have the measures.
SCRIPTS = Path("/var/benchmark")

#: Ends the name of a measure by several clients.
OF_MANY = " of many"
#: The measure by a client beside the server, or beside the primary master.
NEAR = "commits near"
#: What is measured, and how it is called in the table.
MEASURES = {
    "commits": "commits/s, 1 client",
    NEAR: "1 client beside the primary master",
    f"commits{OF_MANY}": f"{CLIENTS} clients",
    "objects": "cold objects/s",
    "write": "write MB/s",
    "read": "read MB/s",
}
PEER = "ZEO"


class Client:
    """A host whose programs measure."""

    def __init__(self, host: Host, python: Path) -> None:
        self.host = host
        self.python = python
        self.environment = host.environment | {"PYTHONPATH": f"{MODULES.parent}:{SCRIPTS}"}

    def install(self) -> None:
        """Copy the measures to the host."""
        folders = {MODULES: MODULES, Path(__file__).parent: SCRIPTS}
        for source, place in (folders | {self.python.parents[1]: self.python.parents[1]}).items():
            self.host.copy(source, place)

    def prepare(self, uri: str) -> None:
        """Make the objects that are changed and read."""
        code = "import sys, storage_zodb; storage_zodb.prepare(sys.argv[1])"
        done = self.host.popen(
            [str(self.python), "-c", code, uri], env=self.environment, stdin=subprocess.DEVNULL
        ).wait()
        if done:
            raise CommandError(f"nothing can be written to {uri}", "see what the client said")

    def measure(self, name: str, uri: str) -> float:
        """Return the figure of a measure, or the sum of those of several clients."""
        kind = name.partition(" ")[0]
        count = CLIENTS if name.endswith(OF_MANY) else 1
        command = [str(self.python), str(SCRIPTS / "storage.py"), "--client", kind, uri]
        with contextlib.ExitStack() as ended:
            processes = [
                self.host.popen(
                    [*command, str(number)],
                    env=self.environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for number in range(count)
            ]
            for process in processes:
                ended.callback(process.wait)
                ended.callback(process.kill)
            _said(processes)
            for process in processes:
                process.stdin.write("start\n")
                process.stdin.flush()
            return sum(map(float, _said(processes)))


def _said(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Return the next line of each client."""
    lines = [process.stdout.readline().strip() for process in processes]
    if not all(lines):
        raise CommandError("a client has failed", "see what it said")
    return lines


@contextlib.contextmanager
def zeo(host: Host, python: Path) -> Iterator[str]:
    """Run a ZEO server on a host and yield its address."""
    address = f"{host.address}:9100"
    host.path("/var/zeo").mkdir(exist_ok=True)
    command = [str(python.with_name("runzeo")), "-a", address, "-f", "/var/zeo/data.fs"]
    process = host.popen(command, cwd="/var/zeo", stderr=subprocess.DEVNULL)
    try:
        yield f"zeo://{address}?wait_timeout=30"
    finally:
        process.kill()
        process.wait()


def storages(mariadb: Path | None) -> Iterator[tuple[str, MariaDB | None, int]]:
    """Yield what NEO is measured on: a name, where the data is, and the replicas."""
    engines: dict[str, MariaDB | None] = {"SQLite": None}
    if mariadb is not None:
        engines |= {engine: MariaDB(mariadb, engine) for engine in ("InnoDB", "RocksDB")}
    for engine, software in engines.items():
        for replicas in (0, 1):
            yield f"NEO on {engine}, {replicas} replica", software, replicas


def measure_all(
    lab: Lab, python: Path, mariadb: Path | None, rounds: int
) -> dict[str, dict[str, float]]:
    """Return the medians of each storage."""
    clients = {name: Client(host, python) for name, host in lab.hosts.items()}
    for client in clients.values():
        client.install()

    def measured(name: str, uri: str, server: str) -> dict[str, float]:
        """Measure from a host that is not the server's, and commits from the server's too."""
        far = next(client for name, client in clients.items() if name != server)
        return _rounds(clients[server], far, name, uri, rounds)

    server = lab.host("tokyo-1")
    with zeo(server, python) as uri:
        found = {PEER: measured(PEER, uri, server.name)}
    for name, software, replicas in storages(mariadb):
        with (
            tempfile.TemporaryDirectory() as folder,
            running_neo(lab, python, Path(folder), mariadb=software, replicas=replicas) as neo,
        ):
            until(neo.is_whole, "the cluster is whole")
            found[name] = measured(name, f"{neo.uri}?compress=false", neo.primary())
    return found


def _rounds(near: Client, client: Client, name: str, uri: str, rounds: int) -> dict[str, float]:
    """Return the medians of several rounds."""
    client.prepare(uri)
    figures: dict[str, list[float]] = {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
        for measure in MEASURES:
            one = near if measure == NEAR else client
            figures.setdefault(measure, []).append(one.measure(measure, uri))
    return {measure: statistics.median(values) for measure, values in figures.items()}


def show(results: list[dict[str, Any]]) -> None:
    """Print a table, in brackets the ratio to ZEO."""
    print("| round trip | storage | " + " | ".join(MEASURES.values()) + " |")
    print("|---" * (len(MEASURES) + 2) + "|")
    for result in results:
        for name, medians in result["medians"].items():
            peer = result["medians"][PEER]
            cells = [f"{medians[m]:.1f} ({medians[m] / peer[m]:.2f})" for m in MEASURES]
            head = [f"{result['round_trip'] * 1000:.0f} ms", name]
            print("| " + " | ".join(head + cells) + " |")


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--round-trip", type=float, action="append", metavar="MS", help="default: 0 and 40"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each storage (3)")
    parser.add_argument("--python", type=Path, help="that of an environment with NEO")
    parser.add_argument(
        "--mariadb", type=Path, help="folder of a MariaDB, to measure its engines too"
    )
    parser.add_argument("--json", action="store_true", help="print everything")
    options = parser.parse_args()
    results = []
    try:
        python = options.python or Path(build_environment())
        for round_trip in options.round_trip or (0, 40):
            centers = {"paris": 1, "tokyo": 1, "virginia": 1}
            with Lab.build(centers, round_trip=round_trip / 1000) as lab:
                medians = measure_all(lab, python, options.mariadb, options.rounds)
            load = os.getloadavg()[0]
            results.append({"round_trip": round_trip / 1000, "load": load, "medians": medians})
    except WendelinError as error:
        print(f"storage_far: {error}", file=sys.stderr)
        return error.exit_status
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
