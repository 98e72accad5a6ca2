# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the master and the computers' services under one supervisord."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from xmlrpc.client import Fault

import psutil
from slapos.grid.svcbackend import getSupervisorRPC
from supervisor.xmlrpc import Faults

from slapos_wendelin import build_settings
from slapos_wendelin.errors import CommandError, MissingRequirementError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.local.home import DATA_CENTERS, MASTER_PORT, Home

#: Variables that say where and how builds download: the services get those of the last ``up``.
BUILD_VARIABLES = (
    *("PIP_", "UV_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    "WENDELIN_JOBS",
)
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
#: Seconds that services get to start and to stop.
START_TIME, STOP_TIME = 30.0, 90.0

SUPERVISORD = """\
[supervisord]
logfile = {log}/services.log
logfile_maxbytes = 10MB
pidfile = {root}/services.pid
directory = {root}
umask = 027

[unix_http_server]
file = {socket}
chmod = 0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""

# The services die with their supervisord, so that a new one never meets old ones. What runs in the
# partitions belongs to the computers' own supervisord and goes on.
PROGRAM = """\
[program:{name}]
command = {setpriv} --pdeathsig TERM -- {command}
environment = {environment}
autostart = {autostart}
autorestart = true
startsecs = 1
startretries = 1000000
stopwaitsecs = 30
redirect_stderr = true
stdout_logfile = {log}/{name}.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 2
"""


class Services:
    """The master and one service for each computer."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.socket = home.root / "services.sock"
        self.configuration = home.root / "etc" / "services.conf"

    def start(self) -> None:
        """Start what does not run, and start anew what runs another version. Safe to repeat.

        Raises MissingRequirementError when the master's port is taken by somebody else.
        """
        changed = self._configure()
        if self.running():
            if changed:
                self._reload()
            return
        self._check_master_port()
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.configuration)]
        # The services have the variables for builds in their configuration, where they can change.
        # Others are in the computers' own.
        ours = {*build_variables(), *build_settings.VARIABLES.values()}
        result = subprocess.run(
            command,
            env={name: value for name, value in os.environ.items() if name not in ours},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if result.returncode:
            raise CommandError(
                f"the services cannot be started: {result.stdout.strip()}",
                f"look into {self.home.log}/services.log",
            )

    def start_computers(self) -> None:
        """Start the services of the computers that do not run. Safe to repeat."""
        with getSupervisorRPC(str(self.socket)) as supervisor:
            for name in DATA_CENTERS:
                try:
                    supervisor.startProcess(name, False)
                except Fault as fault:
                    if fault.faultCode != Faults.ALREADY_STARTED:
                        raise

    def running(self) -> bool:
        """Return whether the supervisord of the services answers."""
        return _answers(self.socket)

    def stop(self) -> None:
        """Stop the services, then all that runs in the partitions. Safe to repeat."""
        _shut_down(self.socket)
        sockets = [self.home.computer(name) / "inst" / "sv.sock" for name in DATA_CENTERS]
        for path in sockets:
            _request_shutdown(path)
        for path in sockets:
            _wait_until_gone(path)
        leftovers = processes_of(self.home)
        for process in leftovers:
            process.terminate()
        _, alive = psutil.wait_procs(leftovers, timeout=10)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=10)

    def _configure(self) -> bool:
        """Write the configuration; return whether it changed."""
        (self.home.root / "etc").mkdir(exist_ok=True)
        for folder in (self.home.log, self.home.data):
            folder.mkdir(mode=0o750, exist_ok=True)
        python = sys.executable
        master = f"{python} -m slapos_wendelin.master --database {self.home.database}"
        master += f" --authority {self.home.authority.parent}"
        programs = {"master": f"{master} --listen {self.home.master_address}"}
        for name in DATA_CENTERS:
            configuration = self.home.computer_configuration(name)
            programs[name] = f"{python} -m slapos_wendelin.node --configuration {configuration}"
        text = SUPERVISORD.format(root=self.home.root, log=self.home.log, socket=self.socket)
        for name, command in programs.items():
            text += "\n" + PROGRAM.format(
                name=name,
                command=command,
                # Computers start once the master knows them.
                autostart=name == "master",
                log=self.home.log,
                setpriv=shutil.which("setpriv"),
                environment="" if name == "master" else _as_option(build_variables()),
            )
        if self.configuration.exists() and self.configuration.read_text() == text:
            return False
        # An index may be named with its password.
        write_atomically(self.configuration, text, secret=True)
        return True

    def _reload(self) -> None:
        """Let the running supervisord take over a changed configuration."""
        with getSupervisorRPC(str(self.socket)) as supervisor:
            added, changed, removed = supervisor.reloadConfig()[0]
            for group in (*changed, *removed):
                supervisor.stopProcessGroup(group)
                supervisor.removeProcessGroup(group)
            for group in (*added, *changed):
                supervisor.addProcessGroup(group)

    def _check_master_port(self) -> None:
        """Refuse to start when another program listens where the master should."""
        host = self.home.own_address
        family = socket.AF_INET6 if self.home.is_ipv6 else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, MASTER_PORT))
            except OSError as error:
                raise MissingRequirementError(
                    f"the master cannot listen at {host}:{MASTER_PORT}: {error.strerror}",
                    "stop the program that does, give this machine the address, or set"
                    " WENDELIN_NETWORK to another network (such as 127.99)",
                ) from error


def build_variables() -> dict[str, str]:
    """Return the environment variables that say where and how builds download."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(BUILD_VARIABLES) or name.lower() in PROXY_VARIABLES
    }


def _as_option(variables: dict[str, str]) -> str:
    """Write variables as supervisord's option ``environment`` wants them.

    Raises MissingRequirementError for a value that it cannot express.
    """
    pairs = []
    for name, value in variables.items():
        quote = next((quote for quote in "\"'" if quote not in value), None)
        if quote is None or "\n" in value:
            raise MissingRequirementError(
                f"the environment variable {name} has both kinds of quotes, or several lines",
                "unset it, or set it without them",
            )
        pairs.append(f"{name}={quote}{value.replace('%', '%%')}{quote}")
    return ",".join(pairs)


def processes_of(home: Home) -> list[psutil.Process]:
    """Return the processes of this user that were started from this environment's folder.

    This process and its parents are not among them.
    """
    ours = {process.pid for process in (psutil.Process(), *psutil.Process().parents())}
    return [
        process
        for process in psutil.process_iter()
        if process.pid not in ours and _belongs_to(process, home.root)
    ]


def _belongs_to(process: psutil.Process, root: Path) -> bool:
    """Return whether the process works below *root* or runs a program below it."""
    try:
        if process.uids().real != os.getuid():
            return False
        folders: Iterable[str] = (process.cwd(), *process.cmdline()[:1])
    except psutil.Error:
        return False
    return any(Path(folder).is_relative_to(root) for folder in folders)


def _answers(path: Path) -> bool:
    """Return whether a supervisord answers on the socket *path*."""
    try:
        with getSupervisorRPC(str(path)) as supervisor:
            return supervisor.getState()["statename"] == "RUNNING"
    except (OSError, Fault):
        return False


def _request_shutdown(path: Path) -> None:
    """Ask the supervisord on *path*, if there is one, to stop its programs and itself."""
    try:
        with getSupervisorRPC(str(path)) as supervisor:
            supervisor.shutdown()
    except (OSError, Fault):
        return


def _wait_until_gone(path: Path) -> None:
    """Wait until no supervisord answers on *path*. Raises CommandError when it takes too long."""
    deadline = time.monotonic() + STOP_TIME
    while True:
        try:
            with getSupervisorRPC(str(path)) as supervisor:
                supervisor.getState()
        except OSError:
            return
        except Fault:
            pass  # it is shutting down
        if time.monotonic() > deadline:
            raise CommandError(
                f"the supervisord of {path.parent} did not stop in {STOP_TIME:.0f} s",
                "run ./wendelin down again",
            )
        time.sleep(0.1)


def _shut_down(path: Path) -> None:
    """Stop the supervisord on *path* and wait for its end."""
    _request_shutdown(path)
    _wait_until_gone(path)
