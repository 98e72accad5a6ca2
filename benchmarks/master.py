#!/usr/bin/env python3
# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the master with slapproxy: requests by many clients, what computers poll, memory.

The master is measured with one process and with two. All run as they are really started, on the
loopback address with their files in a temporary folder. The rounds of all are interleaved and each
figure is the median of the rounds. The clients are processes of their own that run the same code
for all. benchmarks/README.md explains the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import slapos.slap
from rounds import interrupt, medians
from slapos.util import dumps

from slapos_wendelin.errors import CommandError, ParameterError, WendelinError
from slapos_wendelin.master.options import process_count

PEER = "slapproxy"

#: With how many processes the master is measured.
PROCESSES = (1, 2)

#: How many new instances the clients of each number request in all, for one round.
REQUESTS = {1: 60, 8: 160, 32: 640}

#: How often they are sent again in the last measure.
AGAIN = 3

#: The partitions of the computers whose documents are read.
SIZES = (10, 100, 1000)

#: How often an unchanged document is read in a round, and a changed one.
POLLS = {"changed": 3, "unchanged": 10}

#: What the master logs when all its processes answer.
_STARTED = b" event=started "

#: How long a server may take until it answers, and a client for one request, in seconds.
PATIENCE = 60

RELEASE = "https://example.org/software/neo/software.cfg"

_forking = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one client did."""

    begin: float
    end: float
    answered: int
    refused: int


class Server:
    """A running master or slapproxy."""

    def __init__(self, folder: Path, processes: int) -> None:
        """Start a master of so many processes, or slapproxy, with its files in a new folder.

        :param processes: 0 for slapproxy.
        """
        folder.mkdir()
        self.name = name_of(processes)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        command = self._master(folder, processes) if processes else self._slapproxy(folder)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
            )
        try:
            self._wait(folder / "log")
        except BaseException:
            self.stop()
            raise
        self.slap = slapos.slap.slap()
        self.slap.initializeConnection(self.url)

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()

    def memory(self) -> float:
        """Return the resident memory of all its processes in MiB."""
        first = psutil.Process(self._process.pid)
        processes = [first, *first.children(recursive=True)]
        return sum(each.memory_info().rss for each in processes) / 2**20

    def add_computer(self, reference: str, partitions: int) -> None:
        """Register a computer as format does."""
        places = [
            {
                "reference": f"slappart{index}",
                "address_list": [{"addr": "10.0.0.1", "netmask": "255.255.255.255"}],
                "tap": {"name": f"tap{index}"},
            }
            for index in range(partitions)
        ]
        self.slap.registerComputer(reference).updateConfiguration(
            dumps(
                {
                    "reference": reference,
                    "address": "127.0.0.1",
                    "netmask": "255.0.0.0",
                    "partition_list": places,
                }
            )
        )

    def recorded(self, computer: str) -> set[str]:
        """Return the names of the instances that a computer is told."""
        found = set()
        for partition in self.slap.registerComputer(computer).getComputerPartitionList():
            title = getattr(partition, "_parameter_dict", {}).get("instance_title")
            if title:
                found.add(title)
        return found

    def _wait(self, log: Path) -> None:
        """Wait until it answers with all its processes."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            try:
                connection.request("GET", "/getHateoasUrl")
                connection.getresponse().read()
            except OSError:
                time.sleep(0.05)
            else:
                if self.name == PEER or _STARTED in log.read_bytes():
                    return
                time.sleep(0.05)
            finally:
                connection.close()
        text = log.read_text(errors="replace")
        raise CommandError(f"{self.name} does not answer: {text[-2000:]}", "look at its log")

    def _master(self, folder: Path, processes: int) -> list[str]:
        """Return the command that starts our master."""
        arguments = ["--database", str(folder / "master.sqlite"), "--processes", str(processes)]
        listen = ["--plain", "--listen", f"127.0.0.1:{self.port}"]
        return [sys.executable, "-m", "slapos_wendelin.master", *arguments, *listen]

    def _slapproxy(self, folder: Path) -> list[str]:
        """Write slapproxy's configuration and return the command that starts it."""
        configuration = folder / "slapos.cfg"
        configuration.write_text(
            "[slapos]\ncomputer_id = paris\n[slapproxy]\nhost = 127.0.0.1\n"
            f"port = {self.port}\ndatabase_uri = {folder / 'proxy.sqlite'}\n"
        )
        command = [sys.executable, "-c", "from slapos.cli.entry import main; main()"]
        return [*command, "proxy", "start", "--cfg", str(configuration)]


def name_of(processes: int) -> str:
    """Return how tables name a server."""
    if not processes:
        return PEER
    return "master" if processes == 1 else f"{processes} processes"


class RawClient:
    """Sends what the slap library sends, a connection for each request, at little cost."""

    def __init__(self, url: str) -> None:
        self._address = url.removeprefix("http://").rstrip("/")

    def request(self, reference: str, computer: str, parameters: dict[str, str]) -> None:
        """Request an instance."""
        form = {
            "computer_id": "",
            "computer_partition_id": "",
            "software_release": RELEASE,
            "software_type": "default",
            "partition_reference": reference,
            "shared_xml": dumps(False).decode(),
            "partition_parameter_xml": dumps(parameters).decode(),
            "filter_xml": dumps({"computer_guid": computer}).decode(),
            "state": dumps("started").decode(),
        }
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        try:
            connection.request(
                "POST",
                "/requestComputerPartition",
                urlencode(form),
                {"Content-type": "application/x-www-form-urlencoded"},
            )
            answer = connection.getresponse()
            answer.read()
            if answer.status != http.client.OK:
                raise CommandError(f"status {answer.status}", "see the server's log")
        finally:
            connection.close()


class SlapClient:
    """The slap library itself."""

    def __init__(self, url: str) -> None:
        self._slap = slapos.slap.slap()
        self._slap.initializeConnection(url)

    def request(self, reference: str, computer: str, parameters: dict[str, str]) -> None:
        """Request an instance."""
        self._slap.registerOpenOrder().request(
            RELEASE,
            reference,
            partition_parameter_kw=parameters,
            software_type="default",
            filter_kw={"computer_guid": computer},
            state="started",
        )


CLIENTS = {"raw": RawClient, "slap": SlapClient}


def be_client(
    client: RawClient | SlapClient, computer: str, names: list[str], barrier: Any, outcomes: Any
) -> None:
    """Be a client process: request the instances one after another."""
    answered = refused = 0
    barrier.wait(PATIENCE)
    begin = time.monotonic()
    for name in names:
        try:
            client.request(name, computer, {"_": json.dumps({"name": name, "storages": 3})})
        except Exception:
            refused += 1
        else:
            answered += 1
    outcomes.put(Outcome(begin, time.monotonic(), answered, refused))


def request_all(
    kind: str, server: Server, computer: str, names: list[str], clients: int
) -> dict[str, float]:
    """Let clients request instances at the same time; return the rate and what failed."""
    client = CLIENTS[kind](server.url)
    barrier, outcomes = _forking.Barrier(clients), _forking.SimpleQueue()
    processes = [
        _forking.Process(
            target=be_client,
            args=(client, computer, names[number::clients], barrier, outcomes),
        )
        for number in range(clients)
    ]
    try:
        for process in processes:
            process.start()
        done: list[Outcome] = [outcomes.get() for _ in processes]
    finally:
        for process in processes:
            process.join(PATIENCE)
            process.kill()
    seconds = max(each.end for each in done) - min(each.begin for each in done)
    answered = sum(each.answered for each in done)
    return {
        "rate": answered / seconds,
        "answered": answered,
        "refused": sum(each.refused for each in done),
    }


def measure_requests(kind: str, server: Server) -> dict[str, dict[str, float]]:
    """Do one round of requests: new ones, then the same again, which change nothing."""
    figures = {}
    for clients, count in REQUESTS.items():
        computer = f"computer{clients}"
        server.add_computer(computer, count + clients)
        names = [f"cluster-{clients}-{number}" for number in range(count)]
        for what in ("new", "sent once more", "sent again and again"):
            times = AGAIN if what == "sent again and again" else 1
            done = request_all(kind, server, computer, names * times, clients)
            done["recorded"] = len(server.recorded(computer) & set(names))
            done["asked"] = count
            done["recorded_rate"] = done["rate"] * done["recorded"] / count
            figures[f"{what}, {clients} clients"] = done
    figures["memory"] = {"mebibytes": server.memory()}
    return figures


def fill(server: Server) -> None:
    """Make a computer of each size with an instance in every partition."""
    client = RawClient(server.url)
    for size in SIZES:
        server.add_computer(f"size{size}", size)
        for number in range(size):
            client.request(f"size{size}-{number}", f"size{size}", {"_": "{}"})


def measure_documents(server: Server, number: int) -> dict[str, dict[str, float]]:
    """Do one round of what computers read: after a change of one instance, and unchanged."""
    client = RawClient(server.url)
    figures = {}
    for size in SIZES:
        computer = f"size{size}"
        changed = []
        for time_number in range(POLLS["changed"]):
            client.request(f"{computer}-0", computer, {"_": f"[{number}, {time_number}]"})
            changed.append(read_document(server, computer)[0])
        unchanged, length = zip(
            *(read_document(server, computer) for _ in range(POLLS["unchanged"])), strict=True
        )
        figures[f"{size} partitions"] = {
            "changed": statistics.median(changed),
            "unchanged": statistics.median(unchanged),
            "bytes": length[0],
        }
    return figures


def read_document(server: Server, computer: str) -> tuple[float, int]:
    """Read what a computer is told; return the milliseconds and the length."""
    begin = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request("GET", f"/getFullComputerInformation?computer_id={computer}")
    answer = connection.getresponse()
    length = len(answer.read())
    connection.close()
    if answer.status != http.client.OK:
        raise CommandError(f"{server.name} answers with status {answer.status}", "see its log")
    return 1000 * (time.perf_counter() - begin), length


@contextlib.contextmanager
def started(folder: Path, label: str, kinds: Sequence[int]) -> Iterator[dict[str, Server]]:
    """Start slapproxy and a master for each number of processes."""
    with contextlib.ExitStack() as servers:
        found = {}
        for processes in kinds:
            server = Server(folder / f"{processes}-{label}", processes)
            servers.callback(server.stop)
            found[server.name] = server
        yield found


def benchmark(folder: Path, rounds: int, kind: str, processes: Sequence[int]) -> dict[str, Any]:
    """Measure all servers and return the medians, the ratios and the rounds."""
    kinds = (0, *processes)
    names = [name_of(each) for each in kinds]
    figures: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in names}

    def keep(name: str, measured: dict[str, dict[str, float]]) -> None:
        for what, values in measured.items():
            figures[name].setdefault(what, []).append(values)

    with started(folder, "documents", kinds) as readers:
        for name, server in readers.items():
            print(f"filling computers of {name}", file=sys.stderr, flush=True)
            fill(server)
        for number in range(rounds):
            with started(folder, f"round{number}", kinds) as writers:
                for name in names if number % 2 == 0 else reversed(names):
                    print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
                    keep(name, measure_requests(kind, writers[name]))
                    keep(name, measure_documents(readers[name], number))
        for name, server in readers.items():
            keep(name, {"memory, 1110 instances": {"mebibytes": server.memory()}})
    return summary(figures, kind)


def placement(*options: str) -> str:
    """Run the benchmark of placement alone and return what it prints."""
    program = Path(__file__).with_name("placement.py")
    command = [sys.executable, str(program), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise CommandError("the benchmark of placement has failed", f"run {program} alone")
    return done.stdout


def summary(figures: dict[str, dict[str, list[dict[str, float]]]], kind: str) -> dict[str, Any]:
    """Return medians and ratios with the rounds."""
    middle = medians(figures)
    return {
        "client": kind,
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "medians": middle,
        "ratios": {
            name: {
                what: {
                    key: values[key] / middle[PEER][what][key]
                    for key in values.keys() & {"recorded_rate", "unchanged", "mebibytes"}
                }
                for what, values in measured.items()
            }
            for name, measured in middle.items()
            if name != PEER
        },
        "rounds": figures,
    }


def show(result: dict[str, Any]) -> None:
    """Print the medians as tables."""
    print(
        f"{result['processors']} processors, load average {result['load_average']:.1f},"
        f" Python {result['python']}, clients: {result['client']}\n"
    )
    medians, ratios = result["medians"], result["ratios"]
    show_requests(medians, ratios)
    masters = list(ratios)
    heads = [f"{name}, changed ms | unchanged ms | ratio" for name in masters]
    print_row("document", "slapproxy ms", *heads)
    print("|" + "---|" * (2 + 3 * len(masters)))
    for what, peer in medians[PEER].items():
        if "unchanged" in peer:
            cells = [f"{peer['unchanged']:.1f}"]
            for name in masters:
                ours = medians[name][what]
                cells += [f"{ours['changed']:.1f}", f"{ours['unchanged']:.1f}"]
                cells.append(f"{1 / ratios[name][what]['unchanged']:.0f}")
            print_row(what, *cells)
    print()
    print_row("resident memory", *(f"{name} MiB" for name in medians))
    print("|" + "---|" * (1 + len(medians)))
    for what, peer in medians[PEER].items():
        if "mebibytes" in peer:
            print_row(what, *(f"{each[what]['mebibytes']:.0f}" for each in medians.values()))


def show_requests(medians: dict[str, Any], ratios: dict[str, Any]) -> None:
    """Print what was answered and recorded each second.

    The ratios are of what was recorded: an answer to a request that is lost is worth nothing.
    """
    columns = [f"{name} /s | recorded | recorded /s" for name in medians]
    print_row("requests", *columns, *(f"{name} : slapproxy" for name in ratios))
    print("|" + "---|" * (1 + 3 * len(medians) + len(ratios)))
    for what, peer in medians[PEER].items():
        if "rate" in peer:
            cells = []
            for name in medians:
                figures = medians[name][what]
                cells.append(f"{figures['rate']:.0f}")
                cells.append(f"{figures['recorded']:.0f} of {figures['asked']:.0f}")
                cells.append(f"{figures['recorded_rate']:.0f}")
            cells += [f"{each[what]['recorded_rate']:.1f}" for each in ratios.values()]
            print_row(what, *cells)
    print()


def print_row(*cells: str) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(cells)} |")


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each server (3)")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--client", choices=sorted(CLIENTS), default="raw", help="(raw)")
    parser.add_argument(
        "--processes",
        type=process_count,
        action="append",
        metavar="NUMBER",
        help="of the master; may be repeated (1 and 2)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        if arguments.rounds < 1:
            raise ParameterError(f"--rounds is {arguments.rounds}", "give at least 1")
        with tempfile.TemporaryDirectory(prefix="master-", dir=arguments.folder) as folder:
            processes = sorted(set(arguments.processes or PROCESSES))
            result = benchmark(Path(folder), arguments.rounds, arguments.client, processes)
        if arguments.json:
            result["placement"] = json.loads(placement("--json"))
            print(json.dumps(result, indent=2))
        else:
            show(result)
            print(f"\nPlacement alone, in milliseconds:\n\n{placement()}", end="")
    except WendelinError as error:
        print(f"master: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("master: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
