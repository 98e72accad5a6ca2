#!/usr/bin/env python3
# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare NEO with FileStorage, ZEO, RelStorage and MariaDB: commits, objects, blocks of arrays.

The servers run on the loopback address with their files in a temporary folder. The rounds of all
storages are interleaved, each figure is the median of the rounds, and every measure has a client
process of its own, so nothing is in a cache of the client. benchmarks/README.md explains the
figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import storage_sql
import storage_zodb
from rounds import interrupt
from storage_servers import ALWAYS, ON_MARIADB, ON_POSTGRESQL, storages
from storage_sizes import CLIENTS

from slapos_wendelin.errors import CommandError, ParameterError, WendelinError
from slapos_wendelin.neo import client, memory

PEER = "ZEO"

COLUMNS = {
    "commits": "commits/s, 1 client",
    "commits_of_many": f"commits/s, {CLIENTS} clients",
    "objects": "cold objects/s",
    "write": "2 MiB blocks write MB/s",
    "read": "2 MiB blocks read MB/s",
}


def be_client(measure: str, uri: str, number: int) -> None:
    """Be a client process: print the figure."""
    kind = storage_sql if uri.startswith(storage_sql.SCHEME) else storage_zodb
    figure = kind.MEASURES[measure](uri, number)
    client.close_databases()
    print(figure, flush=True)


def run_clients(measure: str, uri: str, count: int = 1) -> float:
    """Run client processes at the same time and return the sum of their figures.

    :raises CommandError: when one has failed.
    """
    with contextlib.ExitStack() as ended:
        processes = []
        for number in range(count):
            process = subprocess.Popen(
                [sys.executable, __file__, "--client", measure, uri, str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | memory.MALLOC_ENVIRONMENT,
            )
            ended.callback(end, process)
            processes.append(process)
        for process in processes:
            expect(process, measure)
        for process in processes:
            process.stdin.write("start\n")
            process.stdin.flush()
        return sum(float(expect(process, measure)) for process in processes)


def expect(process: subprocess.Popen[str], measure: str) -> str:
    """Return the next line of a client."""
    line = process.stdout.readline().strip()
    if not line:
        raise CommandError(f"a client that measures {measure!r} has failed", "read its message")
    return line


def end(process: subprocess.Popen[str]) -> None:
    """End a client process."""
    process.stdin.close()
    process.stdout.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    process.kill()
    process.wait()


def measure_fsync(folder: Path) -> float:
    """Return the median time to make 4 KiB durable in a folder, in milliseconds."""
    path = folder / "fsync"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(b"\0" * 4096)
            start = time.perf_counter()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - start) * 1000)
    path.unlink()
    return statistics.median(times)


def measure_storage(name: str, uri: str) -> dict[str, float]:
    """Do one round with a storage."""
    result = {}
    for measure in storage_zodb.MEASURES:
        result[measure] = run_clients(measure, uri)
        if measure == "commits" and name != "FileStorage":
            result["commits_of_many"] = run_clients(measure, uri, CLIENTS)
    return result


def benchmark(folder: Path, rounds: int, names: list[str], mariadb: Path | None) -> dict[str, Any]:
    """Measure all storages and return the medians, the ratios to ZEO and the rounds."""
    figures: dict[str, dict[str, list[float]]] = {}
    fsync = []
    with storages(folder, names, mariadb) as found:
        for number in range(rounds):
            fsync.append(measure_fsync(folder))
            for name, uri in found.items():
                print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
                for measure, figure in measure_storage(name, uri).items():
                    figures.setdefault(name, {}).setdefault(measure, []).append(figure)
    medians = {
        name: {measure: statistics.median(values) for measure, values in measured.items()}
        for name, measured in figures.items()
    }
    peer = medians.get(PEER, {})
    return {
        "fsync_milliseconds": statistics.median(fsync),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "medians": medians,
        "ratios": {
            name: {m: value / peer[m] for m, value in measured.items() if m in peer}
            for name, measured in medians.items()
        },
        "rounds": figures,
    }


def show(result: dict[str, Any]) -> None:
    """Print the medians as a table, in brackets the ratio to ZEO."""
    print(
        f"fsync of 4 KiB {result['fsync_milliseconds']:.1f} ms, {result['processors']} processors,"
        f" load average {result['load_average']:.1f}, Python {result['python']}\n"
    )
    print("| storage | " + " | ".join(COLUMNS.values()) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, medians in result["medians"].items():
        cells = []
        for measure in COLUMNS:
            ratio = result["ratios"][name].get(measure)
            cell = f"{medians[measure]:.0f}" if measure in medians else "-"
            cells.append(cell if ratio is None else f"{cell} ({ratio:.2f})")
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> int:
    """Run the benchmark and return the exit status."""
    if sys.argv[1:2] == ["--client"]:
        measure, uri, number = sys.argv[2:]
        be_client(measure, uri, int(number))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each storage (5)")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument(
        "--storage",
        action="append",
        choices=[*ALWAYS, ON_POSTGRESQL, *ON_MARIADB],
        help="measure this one only; may be repeated",
    )
    parser.add_argument(
        "--mariadb",
        type=Path,
        help="folder of a MariaDB of component/mariadb: measures what needs one, too; not as root",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        if arguments.rounds < 1:
            raise ParameterError(f"--rounds is {arguments.rounds}", "give at least 1")
        mariadb = arguments.mariadb
        if mariadb and os.getuid() == 0:
            raise ParameterError("databases do not run as root", "run this as an ordinary user")
        with_mariadb = (ON_POSTGRESQL, *ON_MARIADB) if mariadb else ()
        names = arguments.storage or [*ALWAYS, *with_mariadb]
        with tempfile.TemporaryDirectory(prefix="storage-", dir=arguments.folder) as folder:
            result = benchmark(Path(folder), arguments.rounds, names, mariadb)
    except WendelinError as error:
        print(f"storage: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("storage: stopped", file=sys.stderr)
        return 130
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
