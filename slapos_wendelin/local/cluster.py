# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring up the environment and its cluster, step by step. Every step may be repeated."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from slapos.slap import slap

from slapos_wendelin.build_progress import fault_of
from slapos_wendelin.cluster_identity import keep_for_user
from slapos_wendelin.errors import CommandError, WendelinError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.local.computers import configure_computer, format_computer, run_slapos
from slapos_wendelin.local.home import DATA_CENTERS, PARTITION_COUNT, Home
from slapos_wendelin.local.membership import (
    check_master,
    connect,
    let_computers_in,
    let_user_in,
)
from slapos_wendelin.local.progress import Progress, Say
from slapos_wendelin.local.services import Services
from slapos_wendelin.master.client import Document, MasterClient, NotFoundError
from slapos_wendelin.neo import certificates
from slapos_wendelin.waiting import FailedNodeError, NotReadyError, Patience, follow, tree

#: The product that the environment offers, and the instance that it requests.
PRODUCT = "wendelin-cluster"
#: Seconds without any change after which waiting for the cluster is given up.
PATIENCE = 180.0
MASTER_START_TIME = 30.0
CLIENT_CONFIGURATION = """\
[slapos]
master_url = {url}
master_ca_file = {authority}

[slapconsole]
cert_file = {certificate}
key_file = {key}
"""
#: Lines of a log that an error shows.
LOG_LINES = 4

Answer = TypeVar("Answer")


class Environment:
    """One environment and the release that it shall run."""

    def __init__(self, home: Home, release: Path) -> None:
        self.home = home
        self.release_url = str(release / "software" / "wendelin" / "software.cfg")
        self.release = release
        self.services = Services(home)

    @cached_property
    def master(self) -> MasterClient:
        """The master, called as the environment's user."""
        return connect(self.home)

    def up(self, progress: Progress) -> Document:
        """Start everything and wait until the cluster serves; return what it publishes."""
        with progress.step("start the master"):
            self._configure()
            self.services.start()
            wait_for(
                lambda: check_master(self.home), MASTER_START_TIME, "the master does not answer"
            )
            let_user_in(self.home)
        with progress.step(f"register {len(DATA_CENTERS)} computers"):
            let_computers_in(self.home, self.master)
            self._register_computers()
            self.services.start_computers()
        with progress.step("build the software release") as say:
            self._supply()
            self._wait_for_software(say)
        with progress.step(f"slapos request {PRODUCT}"):
            self.master.put_product(PRODUCT, self.release_url, version=self.release.name)
            run_slapos(self.home, "request", PRODUCT)
        with progress.step("start the nodes of the cluster") as say:
            connection = self._wait_for_nodes(say)
            keep_for_user(self.master, PRODUCT, self.home.certificates)
        with progress.step("wait until the NEO cluster runs"):
            wait_for(lambda: self._check_neo(connection), PATIENCE, "the NEO cluster does not run")
        self._drop_unused_releases()
        return connection

    def prove(self, progress: Progress, published: Document) -> str:
        """Run the small example on the cluster; return its last line."""
        with progress.step("run examples/digits.py --small as proof") as say:
            command = [str(self.programs / "analytics-python"), "examples/digits.py", "--small"]
            environment = os.environ | client_environment(self.home, published)
            output: deque[str] = deque(maxlen=LOG_LINES)
            with subprocess.Popen(
                command,
                cwd=self.release,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process:
                for line in process.stdout or ():
                    if line.strip():
                        output.append(line.rstrip())
                        say(line.strip())
            if process.returncode:
                raise CommandError(
                    "the example failed: " + " | ".join(output), "./wendelin status, then up again"
                )
            return "\n".join(output)

    def _check_neo(self, connection: Document) -> None:
        """Ask NEO itself for its state; raises CommandError when that is not RUNNING."""
        answer = subprocess.run(
            [str(self.programs / "neoctl"), "print", "cluster"],
            env=os.environ | client_environment(self.home, connection),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        said = (answer.stdout + answer.stderr).strip().splitlines() or ["nothing"]
        if said[-1] != "RUNNING":
            raise CommandError(f"its state is {said[-1]}")

    @property
    def programs(self) -> Path:
        """Folder of the programs of this release."""
        return programs_of(self.home, self.release_url)

    def _configure(self) -> None:
        """Write every configuration file."""
        for name in DATA_CENTERS:
            configure_computer(self.home, name)
        (self.home.root / "etc").mkdir(exist_ok=True)
        text = CLIENT_CONFIGURATION.format(
            url=self.home.master_url,
            authority=self.home.authority,
            certificate=self.home.user.certificate,
            key=self.home.user.key,
        )
        write_atomically(self.home.client_configuration, text)

    def _register_computers(self) -> None:
        """Tell the master where the computers are, and format those that lack partitions."""
        lacking = []
        for name, region in DATA_CENTERS.items():
            computer = self.master.put_computer(name, datacenter=name, region=region)
            if computer["partitions"] != PARTITION_COUNT:
                lacking.append(name)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: format_computer(self.home, name), lacking))

    def _supply(self) -> None:
        """Ask every computer to build the release, and no other that nothing runs on."""
        self._drop_unused_releases()
        for name in DATA_CENTERS:
            self._supply_to(name, self.release_url, "available")

    def _supply_to(self, computer: str, release_url: str, state: str) -> None:
        """Ask a computer to build a release (state available) or to remove it (destroyed)."""
        connection = slap()
        user = self.home.user
        connection.initializeConnection(
            self.home.master_url, str(user.key), str(user.certificate), str(self.home.authority)
        )
        connection.registerSupply().supply(release_url, computer_guid=computer, state=state)

    def _drop_unused_releases(self) -> None:
        """Let the computers remove the releases that no instance has and that are not this one."""
        status = self.master.status()
        used = {node["release_url"] for root in status["instances"] for node in tree(root)}
        for software in status["software"]:
            unused = software["url"] not in used | {self.release_url}
            if unused and software["requested_state"] != "destroyed":
                self._supply_to(software["computer"], software["url"], "destroyed")

    def _wait_for_software(self, say: Say) -> None:
        """Wait until every computer has built the release. Raises CommandError with its reason."""
        begin = time.time()
        while True:
            software = [
                software
                for software in self.master.status()["software"]
                if software["url"] == self.release_url
            ]
            for item in software:
                self._refuse_failed_build(item, begin)
            missing = [item["computer"] for item in software if not _is_available(item)]
            if len(software) == len(DATA_CENTERS) and not missing:
                return
            if missing:
                say(f"{', '.join(missing)}: {_last_line(self.home.log / f'{missing[0]}.log')}")
            time.sleep(0.5)

    def _refuse_failed_build(self, software: Document, begin: float) -> None:
        """Raise CommandError for a build that failed since *begin* (seconds since the epoch)."""
        if software["reported_state"] != "error":
            return
        if datetime.fromisoformat(software["reported_at"]).timestamp() < begin:
            return
        log = self.home.log / f"{software['computer']}.log"
        reason = fault_of(software["error"] or "") or "no reason given"
        raise CommandError(
            f"{software['computer']} could not build the release: {reason}",
            f"mend that (the whole log: {log}), then ./wendelin up again",
        )

    def _wait_for_nodes(self, say: Say) -> Document:
        """Wait until every node of the tree is started and well; return what the root publishes."""
        steps = follow(
            lambda: self.master.instance(PRODUCT),
            lambda: self.master.software(self.release_url),
            Patience(unchanged=PATIENCE),
            self.release_url,
        )
        try:
            for nodes in steps:
                late = [node for node in nodes if node.fault]
                if late:
                    well = len(nodes) - len(late)
                    say(f"{well} of {len(nodes)} well; {late[0].name}: {late[0].fault}")
        except (FailedNodeError, NotReadyError) as error:
            raise CommandError(
                error.message, f"look into {self.home.log} and ./wendelin status"
            ) from error
        connection: Document = self.master.instance(PRODUCT)["connection"]
        return connection


def programs_of(home: Home, release_url: str) -> Path:
    """Return the folder of the programs of a built release, as the first computer has it."""
    # slapgrid names the folder of a release by the MD5 of its URL.
    digest = hashlib.md5(release_url.encode(), usedforsecurity=False).hexdigest()
    return home.computer(next(iter(DATA_CENTERS))) / "soft" / digest / "bin"


def client_environment(home: Home, published: Document) -> dict[str, str]:
    """Return the environment variables by which programs find the cluster and are let in."""
    variables = {
        "WENDELIN_ZODB_URI": "zodb-uri",
        "WENDELIN_DASK_SCHEDULER": "dask-scheduler",
        "WENDELIN_NEO_ADMIN": "admin",
    }
    found = {name: published[key] for name, key in variables.items() if key in published}
    return found | {certificates.FOLDER_VARIABLE: str(home.certificates)}


def cluster(master: MasterClient) -> Document | None:
    """Return the root instance of the cluster, or None when there is no cluster."""
    try:
        return master.instance(PRODUCT)
    except NotFoundError:
        return None


def wait_for(ask: Callable[[], Answer], seconds: float, otherwise: str) -> Answer:
    """Call *ask* until it raises no WendelinError; the last one is the reason after *seconds*."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except WendelinError as error:
            if time.monotonic() > deadline:
                raise CommandError(
                    f"{otherwise}: {error.message}", "see ./wendelin status"
                ) from error
            time.sleep(0.1)


def _is_available(software: dict[str, Any]) -> bool:
    """Return whether a computer has the release built."""
    return bool(software["reported_state"] == "available")


def _last_line(path: Path) -> str:
    """Return the last line of a log that says something, shortened."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(stream.tell() - 4096, 0))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return "waits"
    return next((line.strip()[-120:] for line in reversed(lines) if line.strip()), "waits")
