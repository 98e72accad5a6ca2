# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An environment of ``./wendelin up`` in a folder of the tests' own, and what can befall it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path

import psutil
from cluster import Cluster
from disks import SmallDisk, own_mounts
from patience import COMMAND_TIME, PATIENCE, wait_for
from processes import command_of, is_alive, send, stop_all, works_below
from slapos.grid.svcbackend import getSupervisorRPC

from slapos_wendelin.local.home import DATA_CENTERS, MASTER_PORT, Home
from slapos_wendelin.local.membership import connect
from slapos_wendelin.master.client import MasterClient
from slapos_wendelin.node.exclusion import holder_of

REPOSITORY = Path(__file__).resolve().parents[2]
#: Second numbers of the loopback addresses that tests use; those of users' environments are lower.
NETWORKS = range(200, 250)
#: Exit status of slapgrid when another one works on the same computer.
ANOTHER_RUNS = 10


class Environment:
    """The master, the three computers and the cluster of one folder."""

    def __init__(self, root: Path, source: Path = REPOSITORY) -> None:
        self.home = Home(root, _free_network())
        self.source = source
        self.cluster = Cluster(self, "wendelin-cluster")
        self.variables = _clean_variables() | {
            "WENDELIN_HOME": str(root),
            "WENDELIN_NETWORK": self.home.network,
        }
        self._started: list[subprocess.Popen[str]] = []
        #: Starts every command, in whatever namespace that is to be.
        self.prefix: tuple[str, ...] = ()
        #: What ``up`` said last, with its proof.
        self.said = ""

    @cached_property
    def master(self) -> MasterClient:
        """The master, called as the environment's user."""
        return connect(self.home)

    def start_wendelin(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start ``./wendelin ARGUMENTS`` in a process group of its own."""
        # Where the tests run in the background, SIGINT is ignored until it is set again.
        program = ("env", "--default-signal=INT", f"--chdir={self.source}", "./wendelin")
        process = subprocess.Popen(
            [*self.prefix, *program, *arguments],
            cwd=self.source,
            env=self.variables | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def interrupt_commands(self) -> None:
        """Kill the commands that a failed test has left."""
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def wendelin(
        self, *arguments: str, status: int | None = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``./wendelin ARGUMENTS`` to its end, which must have the exit status *status*."""
        process = self.start_wendelin(*arguments, **variables)
        try:
            output, _ = process.communicate(timeout=COMMAND_TIME)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert status in (None, process.returncode), f"./wendelin {' '.join(arguments)}: {output}"
        return subprocess.CompletedProcess(process.args, process.returncode, output, None)

    def up(self, *options: str) -> str:
        """Bring everything up and return what ``up`` said."""
        self.said = self.wendelin("up", *options).stdout
        return self.said

    def down(self) -> str:
        """Stop everything; the data stays."""
        return self.wendelin("down").stdout

    def erase(self) -> None:
        """Remove everything."""
        self.wendelin("down", "--erase", "--yes")

    def toolkit(self) -> Path:
        """Folder of the programs of the toolkit that the services run."""
        return Path(self.service("services").cmdline()[0]).parent

    def slapos(
        self, *arguments: str, seconds: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run the ``slapos`` command of the environment's toolkit, for so long at most."""
        client = {"SLAPOS_CLIENT_CONFIGURATION": str(self.home.client_configuration)}
        return subprocess.run(
            [*self.prefix, str(self.toolkit() / "slapos"), *arguments],
            env=self.variables | client,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def look(self, computer: str, *partitions: str) -> int:
        """Let slapgrid look at partitions of a computer, all when none is named.

        The node's service runs promises too, each as often as that wants.
        """
        only = ["--only-cp", ",".join(partitions)] if partitions else []
        configuration = str(self.home.computer_configuration(computer))

        def ask() -> int | None:
            # Asking costs a second of work, which whoever runs is in need of.
            if self.is_at_work(computer):
                return None
            looked = self.slapos("node", "instance", "--cfg", configuration, *only)
            return None if looked.returncode == ANOTHER_RUNS else looked.returncode + 1

        return wait_for(ask, f"slapgrid of {computer}") - 1

    def is_at_work(self, computer: str) -> bool:
        """Return whether the service of a computer, or slapgrid, processes partitions."""
        return holder_of(self.home.computer(computer) / "instance.pid") is not None

    def look_at(self, *nodes: str) -> None:
        """Let slapgrid look at nodes of the cluster, on all their computers at once."""
        self.cluster.look(*nodes)

    def service(self, name: str) -> psutil.Process:
        """Return the process of ``services`` (their supervisord), ``master`` or a computer."""
        supervisord = psutil.Process(int((self.home.root / "services.pid").read_text()))
        if name == "services":
            return supervisord
        wanted = "slapos_wendelin.master" if name == "master" else f"/computers/{name}/slapos.cfg"

        def find() -> psutil.Process | None:
            for child in supervisord.children():
                if any(argument.endswith(wanted) for argument in command_of(child)):
                    return child
            return None

        return wait_for(find, f"the service {name}")

    def supervisord(self, computer: str) -> psutil.Process:
        """Return the supervisord that runs the programs of a computer's partitions."""
        path = self.home.computer(computer) / "inst" / "sv.sock"

        def find() -> psutil.Process | None:
            with contextlib.suppress(OSError), getSupervisorRPC(str(path)) as supervisor:
                return psutil.Process(supervisor.getPID())
            return None

        return wait_for(find, f"the supervisord of {computer}")

    @contextlib.contextmanager
    def unattended(self, *computers: str) -> Iterator[None]:
        """Keep the services of computers from starting what dies; none of them is at work."""
        suspended: list[psutil.Process] = []
        try:
            for computer in computers:
                ask = partial(self._suspend, computer)
                suspended += wait_for(ask, f"{computer} is idle")
            yield
        finally:
            for process in suspended:
                send(process, signal.SIGCONT)

    def _suspend(self, computer: str) -> list[psutil.Process]:
        """Suspend a service that works on nothing, with its helpers; return what is suspended."""
        if self.is_at_work(computer):
            return []
        service = self.service(computer)
        stopped = stop_all(lambda: [service, *service.children(recursive=True)])
        if not self.is_at_work(computer):
            return stopped
        for process in stopped:
            send(process, signal.SIGCONT)
        return []

    def burn(self, computer: str) -> list[psutil.Process]:
        """Kill all processes of a computer at once; return them. Its service starts it again."""
        folder = self.home.computer(computer)
        # Those first that would start others again.
        roots = [self.service(computer), self.supervisord(computer)]

        def find() -> list[psutil.Process]:
            below = [child for root in roots for child in root.children(recursive=True)]
            others = [process for process in self.processes() if works_below(process, folder)]
            return list(dict.fromkeys([*roots, *below, *others]))

        victims = stop_all(find)
        for process in victims:
            send(process, signal.SIGKILL)
        return victims

    @contextlib.contextmanager
    def small_disk(self, folder: Path, mebibytes: int) -> Iterator[SmallDisk]:
        """Let a folder, with what is in it, be on a disk of its own until the end.

        Everything is brought down before and after that, and up again.
        """
        self.down()
        try:
            with own_mounts() as mounts, mounts.small_disk(folder, mebibytes) as disk:
                self.prefix = mounts.prefix
                try:
                    self.wendelin("up", "--no-proof")
                    yield disk
                finally:
                    self.down()
        finally:
            self.prefix = ()
            # Also after a failure, which is to be no reason for others.
            self.wendelin("up", "--no-proof")

    @contextlib.contextmanager
    def dark(self, computer: str) -> Iterator[None]:
        """Kill all processes of a computer, which stays dead until the end."""
        services = self.service("services")
        services.suspend()
        try:
            victims = self.burn(computer)
            yield
            assert not [process for process in victims if is_alive(process)]
            folder = self.home.computer(computer)
            assert not [process for process in self.processes() if works_below(process, folder)]
        finally:
            services.resume()

    def processes(self) -> list[psutil.Process]:
        """Return all processes that work below the folder or name something in it."""
        ours = {process.pid for process in (psutil.Process(), *psutil.Process().parents())}
        found = []
        for process in psutil.process_iter():
            if process.pid not in ours and is_alive(process):
                named = any(str(self.home.root) in argument for argument in command_of(process))
                if named or works_below(process, self.home.root):
                    found.append(process)
        return found

    def arguments(self) -> list[str]:
        """Return what all these processes were started with, where they have not just ended."""
        return [argument for process in self.processes() for argument in command_of(process)]

    def programs(self) -> dict[int, str]:
        """Return the long-lived processes by id: services, supervisords and nodes' programs."""
        names = ("services", "master", *DATA_CENTERS)
        found = {self.service(name).pid: name for name in names}
        for computer in DATA_CENTERS:
            supervisord = self.supervisord(computer)
            found[supervisord.pid] = f"supervisord of {computer}"
            for child in supervisord.children():
                found[child.pid] = " ".join(command_of(child))
        return found

    def in_parallel(self, function: Callable[[str], object], computers: list[str]) -> None:
        """Call a function for computers, all at once."""
        with ThreadPoolExecutor(len(DATA_CENTERS)) as pool:
            list(pool.map(function, computers))


@contextlib.contextmanager
def new_environment(source: Path = REPOSITORY) -> Iterator[Environment]:
    """Yield an environment of which nothing is there yet; nothing is left of it afterwards."""
    with tempfile.TemporaryDirectory(prefix="wl-") as folder:
        environment = Environment(Path(folder) / "home", source)
        try:
            yield environment
        finally:
            try:
                environment.interrupt_commands()
                if environment.home.root.exists():
                    environment.erase()
            finally:
                left = environment.processes()
                names = [f"{process.pid} {' '.join(command_of(process))}" for process in left]
                for process in left:
                    send(process, signal.SIGKILL)
        assert not names, f"these processes outlive down --erase: {names}"
        assert not environment.home.root.exists()


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[None]:
    """Be the other program that has taken a port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def bind() -> bool:
            try:
                listener.bind((host, port))
            except OSError:
                return False
            return True

        wait_for(bind, f"taking {host}:{port}")
        listener.listen()
        yield


def _clean_variables() -> dict[str, str]:
    """Return the environment variables without those of a cluster; builds share one cache.

    Nothing that takes long is compiled: it comes from a cache of compiled parts, or not at all.
    """
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WENDELIN_", "SLAPOS_", "PYTEST_"))
        or name.startswith(("WENDELIN_PYTHON", "WENDELIN_COMPILED"))
    } | {"WENDELIN_COMPILE": "never"}
    cache = os.environ.get("WENDELIN_CACHE")
    if cache:
        variables.setdefault("UV_CACHE_DIR", f"{cache}/uv")
        variables.setdefault("PIP_CACHE_DIR", f"{cache}/pip")
    return variables


def _free_network() -> str:
    """Return a part of the loopback network where no master listens."""
    start = os.getpid() % len(NETWORKS)
    for number in (*NETWORKS[start:], *NETWORKS[:start]):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((f"127.{number}.0.1", MASTER_PORT))
                return f"127.{number}"
    raise AssertionError("no free loopback network")
