# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A computer with a real agent, a real master and a small release, all in one folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import slapos.slap
from master_process import MasterProcess
from slapos.grid.svcbackend import getSupervisorRPC
from slapos.util import dumps

from slapos_wendelin.master.client import MasterClient
from slapos_wendelin.node import exclusion, state

REPOSITORY = Path(__file__).resolve().parents[3]
PATIENCE = 240.0  # seconds

#: The release of the tests in the lab, whose template for instances is another one here.
RELEASE = REPOSITORY / "tests" / "hosts" / "release"

#: A program, a plugin that looks after it, a promise of the old style, and something published.
INSTANCE = """\
[buildout]
parts = service promise program-promise typed publish
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
module = slapos_wendelin.promise.process
output = ${directory:plugin}/service-runs.py
config-program = service
config-pid-file = ${directory:run}/service.pid
config-folder = ${buildout:directory}

[program-promise]
recipe = slapos.recipe.template
inline =
  #!/bin/sh
  test ! -e ${buildout:directory}/fault || { cat ${buildout:directory}/fault; exit 1; }
output = ${directory:promise}/no-fault
mode = 0700

# A template for templates: what is between the marks is for the instance's buildout.
[typed]
recipe = slapos.recipe.template:jinja2
inline = {{ "{{ dumps({'a': [1]}) }} {{ value.a[0] }}" }}
value = !py!{'a': [1]}
output = ${buildout:directory}/typed
context = key value :value

[publish]
recipe = slapos.cookbook:publish.serialised
-slave-instance-list =
folder = ${buildout:directory}
"""

CONFIGURATION = """\
[slapos]
software_root = {folder}/soft
instance_root = {folder}/inst
master_url = {url}
computer_id = paris
root_check = False
promise_timeout = {promise_time}
pidfile_software = {folder}/software.pid
pidfile_instance = {folder}/instance.pid
pidfile_report = {folder}/report.pid
"""


def wait_for(ask: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Call *ask* until it returns something true; fail after *seconds*."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"waited too long until {what}"
        time.sleep(0.02)
    return answer


class Computer:
    """The computer paris, its master and its agent."""

    def __init__(
        self,
        folder: Path,
        partitions: int = 4,
        promise_time: float = 20.0,
    ) -> None:
        """Make everything and start the master."""
        self.folder = folder
        self.instances = folder / "inst"
        self.master = MasterProcess(folder / "master.sqlite", options=["--lost-after", "600"])
        self.configuration = folder / "slapos.cfg"
        self.agent: subprocess.Popen[bytes] | None = None
        for name in ("soft", "inst", "release"):
            (folder / name).mkdir()
        self.write_release(INSTANCE)
        self.configuration.write_text(
            CONFIGURATION.format(folder=folder, url=self.master.url, promise_time=promise_time)
        )
        self.master.start()
        self.client = MasterClient(self.master.url)
        self.client.put_computer("paris")
        self.slap = slapos.slap.slap()
        self.slap.initializeConnection(self.master.url)
        self._format(partitions)

    def write_release(self, instance: str) -> None:
        """Write the release that is built at the next supply."""
        release = self.folder / "release"
        for path in (RELEASE / "software.cfg", REPOSITORY / "stack" / "slapos.cfg"):
            shutil.copy(path, release)
        (release / "instance.cfg.in").write_text(instance)

    def _format(self, count: int) -> None:
        """Make partitions as slapformat does."""
        names = [f"slappart{index}" for index in range(count)]
        for name in names:
            (self.instances / name).mkdir()
            (self.instances / name).chmod(0o750)
            (self.instances / name / ".slapos-resource").write_text("{}")
        places = [
            {
                "reference": name,
                "address_list": [{"addr": "127.0.0.1", "netmask": "255.255.255.255"}],
                "tap": {"name": name},
            }
            for name in names
        ]
        self.slap.registerComputer("paris").updateConfiguration(
            dumps(
                {
                    "reference": "paris",
                    "address": "127.0.0.1",
                    "netmask": "255.0.0.0",
                    "partition_list": places,
                }
            )
        )

    @property
    def release_url(self) -> str:
        """The URL of the release."""
        return str(self.folder / "release" / "software.cfg")

    def supply(self, state: str = "available") -> None:
        """Let the computer have the release, or have it no more."""
        self.slap.registerSupply().supply(self.release_url, computer_guid="paris", state=state)

    def request(self, name: str, wanted: str = "started", **parameters: str) -> None:
        """Request an instance on the computer."""
        self.slap.registerOpenOrder().request(
            self.release_url,
            name,
            partition_parameter_kw=parameters,
            filter_kw={"computer_guid": "paris"},
            state=wanted,
        )

    def start(self) -> None:
        """Start the agent."""
        command = [sys.executable, "-m", "slapos_wendelin.node"]
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                [*command, "--configuration", str(self.configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )

    def stop(self) -> None:
        """Stop the agent."""
        if self.agent is not None:
            self.agent.terminate()
            assert self.agent.wait(PATIENCE) == 0, self.log

    def kill(self) -> None:
        """``kill -9`` the agent and nothing else."""
        assert self.agent is not None
        self.agent.kill()
        self.agent.wait()

    def close(self) -> None:
        """Stop everything."""
        if self.agent is not None and self.agent.poll() is None:
            self.agent.terminate()
            self.agent.wait(PATIENCE)
        # What an agent that a test killed has left would outlive the test.
        exclusion.end_leftovers(self.instances)
        try:
            with getSupervisorRPC(str(self.instances / "sv.sock")) as supervisor:
                supervisor.shutdown()
        except OSError:
            pass
        wait_for(lambda: not (self.instances / "sv.sock").exists(), "supervisord is gone")
        self.client.close()
        self.master.kill()

    @classmethod
    @contextmanager
    def running(cls, folder: Path, **options: Any) -> Iterator[Computer]:
        """Give a computer with a running agent, for which the release is built."""
        made = cls(folder, **options)
        try:
            made.supply()
            made.start()
            yield made
        finally:
            made.close()

    @property
    def log(self) -> str:
        """What the agent and its helpers said."""
        return (self.folder / "agent.log").read_text()

    def partition(self, name: str) -> Path:
        """Return the folder of the partition that an instance is in."""
        return self.instances / self.client.instance(name)["partition"]

    def reported(self, name: str) -> tuple[str, str]:
        """Return the state that the master was told of an instance, and its error."""
        instance = self.client.instance(name)
        return instance["reported_state"], (instance["error"] or {"text": ""})["text"]

    def wait_until_well(self, *names: str) -> None:
        """Wait until instances are started, and the newest that is wanted of them is done."""

        def are_well() -> bool:
            found = [self.client.instance(name) for name in names]
            return all(each["settled"] and each["reported_state"] == "started" for each in found)

        wait_for(are_well, f"{names} are started")

    def wait_for_error(self, name: str, text: str) -> None:
        """Wait until the master knows an error of an instance."""
        wait_for(lambda: text in self.reported(name)[1], f"{name} says {text}")

    def told(self) -> dict[str, Any]:
        """Return what the agent tells of itself."""
        return state.read_state(self.instances) or {}

    def told_of(self, name: str) -> dict[str, Any]:
        """Return what the agent tells of the partition of an instance; empty for nothing."""
        partitions = self.told().get("partitions", ())
        return next((each for each in partitions if each["instance"] == name), {})

    def promise(self, name: str, promise: str) -> dict[str, Any]:
        """Return the result of a promise in the file where slapos.core keeps it; empty for none."""
        path = self.partition(name) / ".slapgrid" / "promise" / "result" / f"{promise}.status.json"
        try:
            result: dict[str, Any] = json.loads(path.read_text())["result"]
        except FileNotFoundError:
            return {}
        return result

    def add_promise(self, name: str, path: str, text: str) -> None:
        """Put a promise into the partition of an instance, below etc."""
        folder = self.partition(name)
        # The agent may look at any moment.
        fresh = folder / "fresh-promise"
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.rename(folder / "etc" / path)

    def helper(self, name: str) -> psutil.Process:
        """Return the process that works for the agent."""
        assert self.agent is not None
        agent = psutil.Process(self.agent.pid)

        def find() -> psutil.Process | None:
            for child in agent.children():
                # Some are there for a moment only.
                with suppress(psutil.Error):
                    if f"slapos_wendelin.node.{name}" in child.cmdline():
                        return child
            return None

        return wait_for(find, f"{name} runs")

    def slapos(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the slapos command."""
        command = [sys.executable, "-W", "ignore", "-m", "slapos_wendelin.cli.entry", *arguments]
        return subprocess.run(
            [*command, "--cfg", str(self.configuration)],
            env=os.environ | {"HOME": str(self.folder), "COLUMNS": "200"},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
