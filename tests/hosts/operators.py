# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A master in a lab, and its operator, who uses the slapos command as users do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.lab import Host, Lab
from slapos_wendelin.lab.cgroups import ControlGroup
from slapos_wendelin.lab.polling import until
from slapos_wendelin.remote.wheelhouse import Platform, Wheelhouse, default_cache

REPOSITORY = Path(__file__).parents[2]
RELEASE = Path(__file__).parent / "release"
#: Where hosts have the release of the tests.
RELEASE_ON_HOSTS = "/usr/local/share/hello"
#: Where computers have their partitions.
INSTANCES = "/srv/slapos-wendelin/inst"
#: A release whose root requests nodes, and where hosts have it.
TREE = Path(__file__).parent / "tree"
TREE_ON_HOSTS = "/usr/local/share/tree"
#: The Python of the hosts, which is this machine's.
HOST_PYTHON = "/usr/bin/python3"
PATIENCE = 300
#: What the master keeps, in the operator's folder.
KEPT = ("--database", "master.sqlite", "--authority", "authority")


@cache
def collect_wheels() -> list[Path]:
    """Fill the cache of wheels for the hosts of a lab, which have no network; return the wheels."""
    told = subprocess.run(
        [HOST_PYTHON, "-c", "import sys; print(*sys.version_info[:2])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    here = Platform.here()
    target = Platform((int(told[0]), int(told[1])), here.machine, here.glibc)
    with tempfile.TemporaryDirectory() as work:
        return Wheelhouse(default_cache(), Path(work)).wheels(target)


class Operator:
    """Whoever runs a cloud from the master's place in a lab."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.place = f"{in_url(lab.address)}:5000"
        self.url = f"https://{self.place}"
        self.known_hosts = folder / "known_hosts"
        self.environment = os.environ | {
            "HOME": str(folder),
            "COLUMNS": "200",
            "XDG_CACHE_HOME": str(default_cache().parents[1]),
            "SLAPOS_CLIENT_CONFIGURATION": str(folder / "client.cfg"),
        }
        self._master: subprocess.Popen[str] | None = None

    def start_master(self) -> None:
        """Start the master and join it as an operator."""
        self.run_master()
        token = self.slapos("master", "token", "alice", *KEPT).stdout.strip()
        self.slapos("configure", "client", "--master-url", self.url, "--token", token)

    def run_master(self, *options: str) -> None:
        """Start the master with what it has kept."""
        listen = ("--listen", self.place)
        with (self.folder / "master.log").open("a") as log:
            self._master = self.lab.master.popen(
                self.command("master", "start", *KEPT, *listen, *options),
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        until(lambda: self._answers() or not self.has_master, "the master answers")
        assert self.has_master, (self.folder / "master.log").read_text()[-2000:]

    @property
    def has_master(self) -> bool:
        """Whether the master runs."""
        return self._master is not None and self._master.poll() is None

    def kill_master(self) -> None:
        """Kill the master, which cannot do anything about it."""
        assert self._master is not None
        self._master.kill()
        self._master.wait()
        # What was killed is what entered the lab; the master itself dies a moment later.
        until(lambda: not self._answers(), "the master is gone")

    def stop_master(self) -> None:
        """Stop the master."""
        if self._master is not None:
            self._master.terminate()
            self._master.wait()

    def command(self, *arguments: str) -> list[str]:
        """Return the slapos command with arguments."""
        return [sys.executable, "-W", "ignore", "-m", "slapos_wendelin.cli.entry", *arguments]

    def slapos(self, *arguments: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run the slapos command to its end, which must have an exit status."""
        done = self.lab.master.run(
            *self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            check=False,
            timeout=PATIENCE,
        )
        said = f"slapos {' '.join(arguments)}: {done.stdout}{done.stderr}"
        assert status in {None, done.returncode}, said
        assert "Traceback" not in said, said
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the slapos command and return it; its output comes line by line."""
        return self.lab.master.popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def joining(self, host: Host, *options: str, datacenter: str = "") -> list[str]:
        """Return the arguments by which a host is joined."""
        center = ["--datacenter", datacenter or host.data_center]
        return [
            "computer",
            "join",
            f"ssh://{host.user}@{in_url(host.address)}",
            *center,
            *self.way(),
            *options,
        ]

    def way(self) -> list[str]:
        """Return the options by which hosts are entered."""
        return ["--identity", str(self.lab.key), "--known-hosts", str(self.lab.known_hosts)]

    def join(self, host: Host, *options: str, status: int = 0) -> dict[str, Any]:
        """Join a host and return what came of it."""
        few = [] if "--partitions" in options else ["--partitions", "3"]
        done = self.slapos(*self.joining(host, *few, "--json", *options), status=status)
        return json.loads(done.stdout)[0]

    def computer(self, name: str) -> dict[str, Any]:
        """Return a computer as the master shows it."""
        return json.loads(self.slapos("computer", "show", name, "--json").stdout)

    def request(self, reference: str, computer: str = "") -> dict[str, Any]:
        """Request an instance of the tests' release, wait until it is well, and return it."""
        place = ["--node", f"computer_guid={computer}"] if computer else []
        release = f"{RELEASE_ON_HOSTS}/software.cfg"
        wait = ["--unchecked", "--wait", str(PATIENCE)]
        self.slapos("request", reference, release, *place, *wait)
        return self.instance(reference)

    def instance(self, reference: str) -> dict[str, Any]:
        """Return an instance as the master shows it."""
        done = self.slapos("cluster", "status", reference, "--json", status=None)
        return json.loads(done.stdout)["instances"][0]

    def token(self, name: str, *options: str) -> str:
        """Return a token for a computer."""
        return json.loads(self.slapos("computer", "token", name, "--json", *options).stdout)[
            "token"
        ]

    def _answers(self) -> bool:
        """Say whether the master takes connections."""
        return takes_connections(self.lab, 5000)


Someone = TypeVar("Someone", bound=Operator)


def in_url(address: str) -> str:
    """Return an address as URLs have it."""
    return f"[{address}]" if ":" in address else address


def takes_connections(lab: Lab, port: int) -> bool:
    """Say whether a program in the master's place takes connections."""
    try:
        lab.master.connect((lab.address, port), 1).close()
    except (OSError, WendelinError):
        return False
    return True


@contextmanager
def serving(lab: Lab, folder: Path, port: int, log: Path) -> Iterator[str]:
    """Serve a folder over HTTP in the master's place, with a log; yield its URL."""
    command = [sys.executable, "-m", "http.server", "--bind", lab.address, str(port)]
    with log.open("w") as stream:
        server = lab.master.popen(command, cwd=folder, stdout=stream, stderr=stream)
    try:
        until(lambda: takes_connections(lab, port), "the folder is served")
        yield f"http://{in_url(lab.address)}:{port}"
    finally:
        server.kill()
        server.wait()


def put_release(host: Host, release: Path = RELEASE, place: str = RELEASE_ON_HOSTS) -> None:
    """Put a release of the tests on a host."""
    folder = host.path(place)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*release.iterdir(), REPOSITORY / "stack" / "slapos.cfg"):
        shutil.copy(path, folder)


def files_of(host: Host) -> set[str]:
    """Return every file of a host with its kind, mode and owner, and the contents of /etc."""
    find = ["find", "/", "-xdev", "-path", "/proc", "-prune", "-o"]
    listed = host.run(*find, "-printf", "%y %m %u %g %p %l\n").stdout.splitlines()
    sums = host.run("find", "/etc", "-type", "f", "-exec", "sha256sum", "{}", "+").stdout
    # What sudo notes of who has used it is its own.
    return {each for each in (*listed, *sums.splitlines()) if ".sudo_as_admin" not in each}


@contextmanager
def systemd_on(host: Host, port: int) -> Iterator[None]:
    """Let systemd run on a host, below the first process that a lab's host has.

    :param port: where an SSH server listens whose sessions are at systemd's.
    """
    group = ControlGroup(host.group.path / "systemd")
    group.make()
    script = f"mount -t cgroup2 cgroup2 /sys/fs/cgroup && /usr/sbin/sshd -p {port} && "
    script += "exec env container=lab /lib/systemd/systemd --system --unit=basic.target"
    spaces = ("--pid", "--mount", "--cgroup", "--fork", "--kill-child", "--mount-proc")
    command = ["unshare", *spaces, "--", "/bin/sh", "-c", script]
    quiet = subprocess.DEVNULL
    with host.popen(command, group=group, stdin=quiet, stdout=quiet, stderr=quiet) as process:
        try:
            until(lambda: _is_up(host), "systemd runs")
            yield
        finally:
            process.kill()


def _is_up(host: Host) -> bool:
    """Say whether systemd has reached its target."""
    return systemctl(host, "is-active", "basic.target") == "active"


def systemctl(host: Host, *arguments: str) -> str:
    """Ask the systemd of a host and return what it says."""
    script = 'exec nsenter --target "$(pgrep -xo systemd)" --all -- systemctl "$@"'
    return host.run("sh", "-c", script, "sh", *arguments, check=False).stdout.strip()


def made_operator(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory, kind: type[Someone] = Operator
) -> Someone:
    """Return the operator of a lab whose master runs."""
    collect_wheels()
    operator = kind(lab, tmp_path_factory.mktemp("operator"))
    operator.start_master()
    return operator


def follow(process: subprocess.Popen[str], *marks: str) -> Sequence[str]:
    """Read what a command says until a line has one of the marks; return the lines."""
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if any(mark in line for mark in marks):
            return lines
    raise AssertionError(f"it never said {marks}: {''.join(lines)}")
