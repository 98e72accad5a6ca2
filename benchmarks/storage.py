#!/usr/bin/env python3
# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare FileStorage, ZEO and NEO on this machine: commits, cold objects, blocks of arrays.

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
from typing import TYPE_CHECKING, Any

from persistent import Persistent
from persistent.mapping import PersistentMapping
from rounds import interrupt

from slapos_wendelin.errors import CommandError, ParameterError, WendelinError
from slapos_wendelin.neo import client, memory
from slapos_wendelin.neo.blocks import Block
from slapos_wendelin.neo.servers import NeoCluster, ZeoServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds for which clients commit one small change after another.
COMMIT_SECONDS = 2.0

#: Clients that commit at the same time.
CLIENTS = 4

#: Small objects that are read one by one.
OBJECTS = 2000

BLOCKS = 32
BLOCK_BYTES = 2 * 2**20
BLOCKS_PER_COMMIT = 4

PEER = "ZEO"

COLUMNS = {
    "commits": "commits/s, 1 client",
    "commits_of_many": f"commits/s, {CLIENTS} clients",
    "objects": "cold objects/s",
    "write": "2 MiB blocks write MB/s",
    "read": "2 MiB blocks read MB/s",
}


def prepare(uri: str) -> None:
    """Make the objects that are changed and read."""

    def make(root: PersistentMapping) -> None:
        root["counters"] = [PersistentMapping(value=0) for _ in range(CLIENTS)]
        root["objects"] = [PersistentMapping(text=f"{n:0100}") for n in range(OBJECTS)]
        root["blocks"] = [Block() for _ in range(BLOCKS)]

    client.run(uri, make)


def commit_for_a_while(uri: str, number: int) -> float:
    """Return how many small changes a client commits in a second."""
    with client.connection(uri) as connection:
        counter = connection.root()["counters"][number]
        counter["value"] += 1
        connection.transaction_manager.commit()
        wait_for_start()
        start = time.perf_counter()
        commits = 0
        while time.perf_counter() - start < COMMIT_SECONDS:
            counter["value"] += 1
            connection.transaction_manager.commit()
            commits += 1
        return commits / (time.perf_counter() - start)


def read_objects(uri: str, _: int) -> float:
    """Return how many small objects a client reads in a second, one by one."""
    with client.connection(uri) as connection:
        objects: list[Persistent] = connection.root()["objects"]
        wait_for_start()
        start = time.perf_counter()
        for found in objects:
            found._p_activate()  # noqa: SLF001 - public by ZODB's convention
        return len(objects) / (time.perf_counter() - start)


def write_blocks(uri: str, _: int) -> float:
    """Return how many megabytes of blocks a client writes in a second, in several commits."""
    contents = [os.urandom(BLOCK_BYTES) for _ in range(BLOCKS)]
    with client.connection(uri) as connection:
        blocks = connection.root()["blocks"]
        wait_for_start()
        start = time.perf_counter()
        for number, (block, content) in enumerate(zip(blocks, contents, strict=True), 1):
            block.data = content
            if number % BLOCKS_PER_COMMIT == 0:
                connection.transaction_manager.commit()
        return BLOCKS * BLOCK_BYTES / 1e6 / (time.perf_counter() - start)


def read_blocks(uri: str, _: int) -> float:
    """Return how many megabytes of blocks a client reads in a second."""
    with client.connection(uri) as connection:
        blocks: list[Block] = connection.root()["blocks"]
        wait_for_start()
        start = time.perf_counter()
        size = sum(len(block.read() or b"") for block in blocks)
        seconds = time.perf_counter() - start
    if size != BLOCKS * BLOCK_BYTES:
        raise CommandError(f"{size} bytes of blocks were read", "report this with the output")
    return size / 1e6 / seconds


MEASURES: dict[str, Callable[[str, int], float]] = {
    "commits": commit_for_a_while,
    "objects": read_objects,
    "write": write_blocks,
    "read": read_blocks,
}


def wait_for_start() -> None:
    """In a client process: tell that everything is ready, and begin with the others."""
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("the benchmark has ended")


def be_client(measure: str, uri: str, number: int) -> None:
    """Be a client process: print the figure."""
    figure = MEASURES[measure](uri, number)
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


@contextlib.contextmanager
def storages(folder: Path) -> Iterator[dict[str, str]]:
    """Start the servers and yield the address of each storage."""
    with contextlib.ExitStack() as servers:
        found = {"FileStorage": f"file://{new_folder(folder, 'file')}/data.fs"}
        found["ZEO"] = servers.enter_context(ZeoServer(new_folder(folder, "zeo"))).uri
        neo = servers.enter_context(NeoCluster(new_folder(folder, "neo"))).uri
        found["NEO on SQLite"] = neo
        neo = servers.enter_context(NeoCluster(new_folder(folder, "neo-zlib"))).uri
        found["NEO on SQLite, zlib"] = f"{neo}?compress=true"
        for uri in found.values():
            prepare(uri)
        client.close_databases()
        yield found


def new_folder(folder: Path, name: str) -> Path:
    """Make a folder and return it."""
    path = folder / name
    path.mkdir()
    return path


def measure_storage(name: str, uri: str) -> dict[str, float]:
    """Do one round with a storage."""
    result = {}
    for measure in MEASURES:
        result[measure] = run_clients(measure, uri)
        if measure == "commits" and name != "FileStorage":
            result["commits_of_many"] = run_clients(measure, uri, CLIENTS)
    return result


def benchmark(folder: Path, rounds: int, names: list[str]) -> dict[str, Any]:
    """Measure all storages and return the medians, the ratios to ZEO and the rounds."""
    figures: dict[str, dict[str, list[float]]] = {}
    fsync = []
    with storages(folder) as found:
        chosen = {name: uri for name, uri in found.items() if name in names}
        for number in range(rounds):
            fsync.append(measure_fsync(folder))
            for name, uri in chosen.items():
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
    every = ["FileStorage", "ZEO", "NEO on SQLite", "NEO on SQLite, zlib"]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each storage (5)")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument(
        "--storage", action="append", choices=every, help="measure this one only; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        if arguments.rounds < 1:
            raise ParameterError(f"--rounds is {arguments.rounds}", "give at least 1")
        with tempfile.TemporaryDirectory(prefix="storage-", dir=arguments.folder) as folder:
            result = benchmark(Path(folder), arguments.rounds, arguments.storage or every)
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
