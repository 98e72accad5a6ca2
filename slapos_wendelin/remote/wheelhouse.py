# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collect the wheels of the toolkit for the Python of a host, once for all hosts that are alike."""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from slapos_wendelin.errors import CommandError, MissingRequirementError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.remote.own_wheel import lock_text, make_wheel

#: A requirement of a lock with its hashes.
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==(?:.*\\\n)*.*", re.MULTILINE)
#: The oldest manylinux that wheels are made for.
_OLDEST_GLIBC = 5
#: What builds wheels, and what that needs.
_BUILDERS = frozenset({"packaging", "pip", "setuptools", "wheel"})
_LOCKED = ("--no-deps", "--require-hashes")
_BUILD = ("-m", "pip", "wheel", "--no-build-isolation", *_LOCKED)
_DOWNLOAD = ("-m", "pip", "download", "--only-binary=:all:", *_LOCKED)
_OLD_NAMES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}


@dataclass(frozen=True)
class Platform:
    """What wheels have to fit."""

    python: tuple[int, int]
    machine: str
    #: The minor version of the GNU C library 2.
    glibc: int

    @classmethod
    def here(cls) -> Platform:
        """Return this machine's."""
        minor = platform.libc_ver()[1].partition(".")[2]
        return cls(sys.version_info[:2], platform.machine(), int(minor or 0))

    def __str__(self) -> str:
        return f"cp{self.python[0]}{self.python[1]}-{self.machine}-glibc-2.{self.glibc}"

    def runs(self, other: Platform) -> bool:
        """Say whether what was built on another platform runs here."""
        return (self.python, self.machine) == (other.python, other.machine) and (
            self.glibc >= other.glibc
        )

    def tags(self) -> list[str]:
        """Return the names of the platforms whose wheels run here, the newest first."""
        names = []
        for minor in range(self.glibc, _OLDEST_GLIBC - 1, -1):
            names.append(f"manylinux_2_{minor}_{self.machine}")
            if minor in _OLD_NAMES:
                names.append(f"{_OLD_NAMES[minor]}_{self.machine}")
        return names


@dataclass(frozen=True)
class Bundle:
    """What is sent to a host: one compressed archive of wheels, and the locks that fit it."""

    archive: Path
    #: Names the toolkit, by all that it consists of.
    identity: str
    #: Requirements with hashes: of others' packages, and of this one.
    lock: str
    project: str
    #: What the host gets from the network itself.
    from_index: str = ""

    @property
    def order(self) -> dict[str, str]:
        """What the host is told of it."""
        return {
            "lock": self.lock,
            "project": self.project,
            "from_index": self.from_index,
        }


class Wheelhouse:
    """The wheels of this toolkit for the platforms of hosts."""

    def __init__(self, cache: Path, work: Path) -> None:
        """Make a wheelhouse.

        :param cache: a folder that is kept.
        :param work: a folder for this run.
        """
        self._cache = cache
        self._work = work
        self._lock = lock_text()
        self._own = make_wheel(work)
        self._guard = threading.Lock()
        self._bundles: dict[tuple[str, bool], Bundle] = {}

    def identity(self, target: Platform) -> str:
        """Return what names the toolkit for a platform."""
        own = hashlib.sha256(self._own.read_bytes()).hexdigest()
        text = "\0".join((own, self._lock, str(target)))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def bundle(self, target: Platform, *, from_index: bool) -> Bundle:
        """Return what to send to a host of a platform.

        :param from_index: whether the host gets from the network what is there as wheels.
        :raises CommandError: when the wheels cannot be had.
        """
        with self._guard:
            key = (str(target), from_index)
            if key not in self._bundles:
                self._bundles[key] = self._pack(target, from_index=from_index)
            return self._bundles[key]

    def _pack(self, target: Platform, *, from_index: bool) -> Bundle:
        """Put the wheels into one archive."""
        wheels = self.wheels(target)
        built = [path for path in wheels if not self._is_locked(path)]
        lock = without(self._lock, {_name(path) for path in built}) + "".join(map(_pinned, built))
        sent = [*built, self._own] if from_index else [*wheels, self._own]
        download = without(lock, {_name(path) for path in built}) if from_index else ""
        archive = self._work / f"{target}{'-network' if from_index else ''}.tar.gz"
        with (
            # Wheels are compressed already.
            gzip.open(archive, "wb", compresslevel=1) as stream,
            tarfile.open(fileobj=stream, mode="w|") as tar,
        ):
            for path in sent:
                tar.add(path, path.name, recursive=False)
        return Bundle(archive, self.identity(target), lock, _pinned(self._own), download)

    def wheels(self, target: Platform) -> list[Path]:
        """Return the wheels of others' packages for a platform, from the cache or the index."""
        digest = hashlib.sha256(self._lock.encode()).hexdigest()[:12]
        folder = self._cache / f"{digest}-{target}"
        if not (folder / ".complete").exists():
            self._cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._cache) as temporary:
                found = Path(temporary) / "wheels"
                found.mkdir()
                self._collect(target, found)
                (found / ".complete").touch()
                try:
                    found.rename(folder)
                except OSError:
                    # Another process may have collected the same meanwhile.
                    if not (folder / ".complete").exists():
                        raise
        return sorted(folder.glob("*.whl"))

    def _collect(self, target: Platform, folder: Path) -> None:
        """Fill a folder with wheels."""
        here = Platform.here()
        own = folder if target.runs(here) else self._work / "here"
        own.mkdir(exist_ok=True)
        lock = self._work / "lock.txt"
        write_atomically(lock, self._lock)
        # Setuptools and wheel of the toolkit build what is there as source only.
        _pip([sys.executable, *_BUILD, "--wheel-dir", str(own), "-r", str(lock)])
        if own is folder:
            return
        built = [path for path in own.glob("*.whl") if not self._is_locked(path)]
        write_atomically(lock, without(self._lock, {_name(path) for path in built}))
        version = f"{target.python[0]}.{target.python[1]}"
        options = [f"--python-version={version}"]
        options += [f"--platform={tag}" for tag in target.tags()]
        _pip([sys.executable, *_DOWNLOAD, *options, "--dest", str(folder), "-r", str(lock)])
        for path in built:
            if path.name.endswith("-none-any.whl"):
                shutil.copy(path, folder)
            else:
                self._build(_name(path), target, folder)

    def _build(self, name: str, target: Platform, folder: Path) -> None:
        """Build one package that has to be compiled, with a Python of the host's version."""
        version = f"{target.python[0]}.{target.python[1]}"
        here = Platform.here()
        if target.machine != here.machine or target.glibc < here.glibc:
            raise MissingRequirementError(
                f"{name} has to be compiled for {target}, which this machine cannot",
                "join that host from a machine of its kind",
            )
        with tempfile.TemporaryDirectory(dir=self._work) as temporary:
            python = Path(temporary) / "venv" / "bin" / "python"
            make = [find_uv_bin(), "venv", "--python", version, str(python.parents[1])]
            if subprocess.run(make, capture_output=True, check=False).returncode:
                raise MissingRequirementError(
                    f"{name} has to be compiled for Python {version}, which is not installed here",
                    f"install python{version}-dev here, or join from a machine that has it",
                )
            lock = Path(temporary) / "tools.txt"
            lock.write_text(only(self._lock, _BUILDERS))
            install = [find_uv_bin(), "pip", "install", "--python", str(python)]
            _pip([*install, "--require-hashes", "-r", str(lock)])
            lock.write_text(only(self._lock, {name}))
            _pip([str(python), *_BUILD, "--wheel-dir", str(folder), "-r", str(lock)])

    def _is_locked(self, path: Path) -> bool:
        """Say whether a wheel came from the index, with a hash that the lock has."""
        return hashlib.sha256(path.read_bytes()).hexdigest() in self._lock


def default_cache() -> Path:
    """Return the folder in which wheels are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "slapos-wendelin" / "wheels"


def _pip(command: Sequence[str]) -> None:
    """Run pip, or what acts like it."""
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise CommandError(
            f"the wheels of the toolkit cannot be had: {' | '.join(lines[-3:])}",
            "see that this machine reaches the Python index, then repeat the command",
        )


def _name(path: Path) -> str:
    """Return the name of a wheel's package, as locks write it."""
    return re.sub(r"[-_.]+", "-", path.name.partition("-")[0]).lower()


def _pinned(path: Path) -> str:
    """Return a requirement for just this wheel."""
    version = path.name.split("-")[1]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{_name(path)}=={version} --hash=sha256:{digest}\n"


def without(lock: str, names: Collection[str]) -> str:
    """Return a lock without some packages."""
    return "".join(
        f"{each[0]}\n" for each in _REQUIREMENT.finditer(lock) if each[1].lower() not in names
    )


def only(lock: str, names: Collection[str]) -> str:
    """Return a lock with some packages only."""
    return "".join(
        f"{each[0]}\n" for each in _REQUIREMENT.finditer(lock) if each[1].lower() in names
    )
