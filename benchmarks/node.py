#!/usr/bin/env python3
# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the node agent with slapgrid: first instances, a minute with nothing to do, latency.

Both work for masters of their own, which are ours, with the same slapos.cfg and the same release.
The rounds of both are interleaved and each figure is the median of the rounds. benchmarks/README.md
explains the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import slapos.slap
from rounds import interrupt, medians
from slapos.grid.svcbackend import getSupervisorRPC
from slapos.util import dumps

from slapos_wendelin.errors import (
    CommandError,
    MissingRequirementError,
    ParameterError,
    WendelinError,
)
from slapos_wendelin.master.client import MasterClient
from slapos_wendelin.node import state

AGENT, PEER = "agent", "slapgrid"

#: How many instances are requested at once, and of how many the idle minute is measured.
SIZES, IDLE_SIZES = (1, 10, 50), (10, 50)

#: How often cron starts slapgrid on a computer, in seconds.
CRON_INTERVAL = 60.0

#: The CPU seconds in two seconds below which the agent has started.
STEADY = 0.05

#: How long anything may take, in seconds.
PATIENCE = 600.0

REPOSITORY = Path(__file__).resolve().parents[1]

#: The release of the tests is as small as a release can be.
RELEASE = REPOSITORY / "tests" / "hosts" / "release"
#: What else its template for instances is told.
CONTEXT = "  raw plugin ${:_profile_base_location_}/plugin.py\n"

#: A small instance: one program, one promise of each style, something published.
INSTANCE = """\
[buildout]
parts = service promise program-promise publish
extensions = slapos_wendelin
eggs-directory = {{ eggs_directory }}
develop-eggs-directory = {{ develop_eggs_directory }}
eggs-directory-version =

[directory]
recipe = slapos.cookbook:mkdirectory
etc = ${buildout:directory}/etc
var = ${buildout:directory}/var
run = ${:var}/run
service = ${:etc}/run
plugin = ${:etc}/plugin
promise = ${:etc}/promise

[service]
recipe = slapos.recipe.template
inline =
  #!/bin/sh
  echo $$ > ${directory:run}/service.pid
  exec sleep 1000000
output = ${directory:service}/service
mode = 0700

[promise]
recipe = slapos.cookbook:promise.plugin
eggs = slapos_wendelin
file = {{ plugin }}
output = ${directory:plugin}/service-runs.py
config-pid-file = ${directory:run}/service.pid

[program-promise]
recipe = slapos.recipe.template
inline =
  #!/bin/sh
  test -s ${directory:run}/service.pid
output = ${directory:promise}/pid-is-written
mode = 0700

[publish]
recipe = slapos.cookbook:publish.serialised
-slave-instance-list =
folder = ${buildout:directory}
"""

#: A promise that wants to be run at each start of slapgrid by cron.
PLUGIN = """\
import os
from zope.interface import implementer
from slapos.grid.promise import interface
from slapos.grid.promise.generic import GenericPromise

@implementer(interface.IPromise)
class RunPromise(GenericPromise):
    def __init__(self, config):
        GenericPromise.__init__(self, config)
        self.setPeriodicity(minute=0.95)
        self.allowBang(False)

    def sense(self):
        try:
            with open(self.getConfig('pid-file')) as stream:
                os.kill(int(stream.read()), 0)
        except (OSError, ValueError) as error:
            self.logger.error('the service does not run: %s', error)
        else:
            self.logger.info('the service runs')
"""

CONFIGURATION = """\
[slapos]
software_root = {folder}/soft
instance_root = {folder}/inst
master_url = {url}
computer_id = paris
root_check = False
pidfile_software = {folder}/software.pid
pidfile_instance = {folder}/instance.pid
pidfile_report = {folder}/report.pid
"""


class Computer:
    """A prepared computer with a master of its own: the release is built, nothing is requested."""

    def __init__(self, name: str, folder: Path, partitions: int) -> None:
        """Make and start everything."""
        folder.mkdir()
        self.name = name
        self.folder = folder
        self.partitions = partitions
        self.agent: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}/"
        self._log = (folder / "log").open("wb")
        self._master = self._start(
            "slapos_wendelin.master",
            *("--plain", "--log-level", "error", "--database", str(folder / "master.sqlite")),
            *("--listen", self.url.removeprefix("http://").rstrip("/")),
        )
        self.client = MasterClient(self.url)
        try:
            self._prepare()
        except BaseException:
            self.stop()
            raise

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a Python module."""
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd="/"
        )

    def _prepare(self) -> None:
        """Register and format the computer, and build the release."""
        self.configuration = self.folder / "slapos.cfg"
        self.configuration.write_text(CONFIGURATION.format(folder=self.folder, url=self.url))
        for name in ("soft", "inst", "release"):
            (self.folder / name).mkdir()
        release = self.folder / "release"
        files = {
            "slapos.cfg": (REPOSITORY / "stack" / "slapos.cfg").read_text(),
            "software.cfg": (RELEASE / "software.cfg").read_text() + CONTEXT,
            "instance.cfg.in": INSTANCE,
            "plugin.py": PLUGIN,
        }
        for name, text in files.items():
            (release / name).write_text(text)
        self.release_url = str(release / "software.cfg")
        self.wait(self._answers, "the master answers")
        self.client.put_computer("paris")
        self.slap = slapos.slap.slap()
        self.slap.initializeConnection(self.url)
        self._format()
        self.slap.registerSupply().supply(self.release_url, computer_guid="paris")
        self.slapos("software")
        # It starts supervisord, and finds no instance.
        self.slapos("instance")

    def _answers(self) -> bool:
        """Return whether the master answers."""
        try:
            return self.client.health()["status"] == "ok"
        except WendelinError:
            return False

    def _format(self) -> None:
        """Make the partitions as slapformat does."""
        names = [f"slappart{number}" for number in range(self.partitions)]
        for name in names:
            (self.folder / "inst" / name).mkdir()
            (self.folder / "inst" / name).chmod(0o750)
        places = [
            {
                "reference": name,
                "address_list": [{"addr": "127.0.0.1", "netmask": "255.255.255.255"}],
                "tap": {"name": name},
            }
            for name in names
        ]
        computer = {"reference": "paris", "address": "127.0.0.1", "netmask": "255.0.0.0"}
        self.slap.registerComputer("paris").updateConfiguration(
            dumps({**computer, "partition_list": places})
        )

    def wait(self, ask: Callable[[], Any], what: str, pause: float = 0.02) -> None:
        """Call *ask* until it returns something true; raises CommandError after long."""
        deadline = time.monotonic() + PATIENCE
        while not ask():
            if time.monotonic() > deadline:
                raise CommandError(f"waited too long until {what}", f"see {self.folder}/log")
            time.sleep(pause)

    def slapos(self, command: str) -> float:
        """Run ``slapos node COMMAND`` as cron does; return the CPU seconds of all its processes."""
        before = _children_seconds()
        program = Path(sys.executable).with_name("slapos")
        subprocess.run(
            [program, "node", command, "--cfg", self.configuration],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        return _children_seconds() - before

    def start_agent(self) -> None:
        """Start the agent and wait until it has nothing to do."""
        options = ("--configuration", str(self.configuration))
        self.agent = self._start("slapos_wendelin.node", *options)
        self.wait(self._is_idle, "the agent is idle")
        before = 0.0
        # Its helpers import what they need meanwhile.
        while (used := self.agent_seconds()) - before > STEADY:
            before = used
            time.sleep(2)

    def _is_idle(self) -> bool:
        """Return whether the agent has read what the master wants, and has done it."""
        told = state.read_state(self.folder / "inst")
        if told is None or told["master"]["error"]:
            return False
        settled = all(each["phase"] == "settled" for each in told["partitions"])
        return settled and not (self.folder / "instance.pid").exists()

    def agent_seconds(self) -> float:
        """Return the CPU seconds that the agent, its helpers and all they ran have used."""
        return sum(
            sum(process.cpu_times()[:4]) for process in self._agent_processes(recursive=False)
        )

    def agent_memory(self) -> float:
        """Return the memory in MiB that only the agent and its helpers use."""
        processes = self._agent_processes(recursive=True)
        return sum(each.memory_full_info().uss for each in processes) / 2**20

    def _agent_processes(self, *, recursive: bool) -> list[psutil.Process]:
        """Return the agent and its helpers."""
        if self.agent is None:
            return []
        agent = psutil.Process(self.agent.pid)
        return [agent, *agent.children(recursive=recursive)]

    def request(self) -> None:
        """Request an instance for each partition."""
        for number in range(self.partitions):
            self.slap.registerOpenOrder().request(
                self.release_url, f"instance{number}", filter_kw={"computer_guid": "paris"}
            )

    def is_started(self) -> bool:
        """Return whether every instance was reported as started, with green promises."""
        found = self.client.instances()
        return all(each["settled"] and each["reported_state"] == "started" for each in found)

    def stop(self) -> None:
        """Stop everything."""
        if self.agent is not None:
            self.agent.terminate()
            self.agent.wait(PATIENCE)
        path = self.folder / "inst" / "sv.sock"
        with contextlib.suppress(OSError), getSupervisorRPC(str(path)) as supervisor:
            supervisor.shutdown()
        with contextlib.suppress(CommandError):
            self.wait(lambda: not path.exists(), "supervisord is gone")
        self.client.close()
        self._master.terminate()
        self._master.wait(PATIENCE)
        self._log.close()


def _children_seconds() -> float:
    """Return the CPU seconds of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_first(computer: Computer) -> dict[str, float]:
    """Request instances; return the CPU seconds and the time until all are reported as started."""
    if computer.name == AGENT:
        begun_at = computer.agent_seconds()
    begin = time.monotonic()
    computer.request()
    if computer.name == AGENT:
        computer.wait(computer.is_started, "all instances are started")
        wall = time.monotonic() - begin
        computer.wait(computer._is_idle, "the agent is idle")  # noqa: SLF001
        return {"cpu": computer.agent_seconds() - begun_at, "wall": wall}
    used = 0.0
    while not computer.is_started():
        if time.monotonic() - begin > PATIENCE:
            raise CommandError("slapgrid does not start the instances", f"see {computer.folder}")
        used += computer.slapos("instance")
    return {"cpu": used, "wall": time.monotonic() - begin}


def measure_idle(computers: dict[str, Computer]) -> dict[str, dict[str, float]]:
    """Let both have nothing to do for the time between two starts by cron; return CPU seconds."""
    agent = computers[AGENT]
    before = agent.agent_seconds()
    time.sleep(CRON_INTERVAL)
    used = agent.agent_seconds() - before
    memory = agent.agent_memory()
    return {
        AGENT: {"cpu": used, "memory": memory},
        PEER: {"cpu": computers[PEER].slapos("instance")},
    }


@contextlib.contextmanager
def prepared(folder: Path, label: str, size: int) -> Iterator[dict[str, Computer]]:
    """Make a computer for each."""
    with contextlib.ExitStack() as stack:
        computers = {}
        for name in (PEER, AGENT):
            computers[name] = Computer(name, folder / f"{name}-{label}", size)
            stack.callback(computers[name].stop)
        computers[AGENT].start_agent()
        yield computers


def benchmark(folder: Path, rounds: int, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Measure both and return the medians, the ratios and the rounds."""
    figures: dict[str, dict[str, list[dict[str, float]]]] = {PEER: {}, AGENT: {}}

    def keep(name: str, what: str, values: dict[str, float]) -> None:
        figures[name].setdefault(what, []).append(values)
        told = ", ".join(f"{key} {value:.2f}" for key, value in values.items())
        print(f"{what}: {name}: {told}", file=sys.stderr, flush=True)

    for number in range(rounds):
        order = (PEER, AGENT) if number % 2 == 0 else (AGENT, PEER)
        for size in sizes:
            with prepared(folder, f"{number}-{size}", size) as computers:
                keep(AGENT, "start of the agent", {"cpu": computers[AGENT].agent_seconds()})
                for name in order:
                    keep(name, f"first {size}", measure_first(computers[name]))
                if size in IDLE_SIZES:
                    for name, values in measure_idle(computers).items():
                        keep(name, f"idle minute of {size}", values)
    return summary(figures)


def summary(figures: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, Any]:
    """Return medians and ratios with the rounds."""
    middle = medians(figures)
    return {
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "medians": middle,
        "ratios": {
            what: {key: value / middle[AGENT][what][key] for key, value in peer.items()}
            for what, peer in middle[PEER].items()
        },
        "rounds": figures,
    }


def show(result: dict[str, Any]) -> None:
    """Print the medians as tables."""
    print(
        f"{result['processors']} processors, load average {result['load_average']:.1f},"
        f" Python {result['python']}\n"
    )
    medians, ratios = result["medians"], result["ratios"]
    print("| what | slapgrid CPU s | agent CPU s | ratio | slapgrid s | agent s | ratio |")
    print("|---|" + "---:|" * 6)
    for what, peer in medians[PEER].items():
        ours, ratio = medians[AGENT][what], ratios[what]
        line = f"| {what} | {peer['cpu']:.2f} | {ours['cpu']:.2f} | {ratio['cpu']:.1f} |"
        if "wall" in peer:
            line += f" {peer['wall']:.1f} | {ours['wall']:.1f} | {ratio['wall']:.1f} |"
        else:
            line += " | | |"
        print(line)
    start = medians[AGENT]["start of the agent"]["cpu"]
    memory = max(values.get("memory", 0.0) for values in medians[AGENT].values())
    print(f"\nThe start of the agent takes {start:.1f} CPU seconds, once.", end=" ")
    print(f"It holds {memory:.0f} MiB." if memory else "")


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (3)")
    parser.add_argument(
        "--size", type=int, action="append", help="measure this many instances only"
    )
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        if arguments.rounds < 1 or any(size < 1 for size in arguments.size or ()):
            raise ParameterError("there is nothing to measure", "give at least 1")
        if os.geteuid() == 0:
            raise MissingRequirementError(
                "partitions must not belong to root", "run this as an ordinary user"
            )
        with tempfile.TemporaryDirectory(prefix="node-", dir=arguments.folder) as folder:
            sizes = tuple(arguments.size or SIZES)
            result = benchmark(Path(folder), arguments.rounds, sizes)
        if arguments.json:
            print(json.dumps(result, indent=2))
        else:
            show(result)
    except WendelinError as error:
        print(f"node: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("node: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
