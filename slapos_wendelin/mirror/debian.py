# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Source archives out of Debian's source packages, from where this machine gets packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from slapos_wendelin.files import sha256_of
from slapos_wendelin.mirror.errors import MirrorError

_CONFIGURATION = """\
Dir::State "{work}/state";
Dir::State::status "/dev/null";
Dir::Cache "{work}/cache";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{work}/sources";
APT::Get::List-Cleanup "false";
APT::Sandbox::User "";
"""


@dataclass(frozen=True)
class _Held:
    """A version of a source package that has an archive."""

    version: str
    filename: str


class DebianSources:
    """The source packages that belong to the binary packages this machine is configured for.

    apt runs with a configuration of its own, so that nothing of the system changes.
    """

    def __init__(self, apt: Path = Path("/etc/apt")) -> None:
        self._apt = apt
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._trouble = ""

    def close(self) -> None:
        """Remove what apt has downloaded."""
        if self._folder:
            self._folder.cleanup()
            self._folder = None

    def fetch(self, package: str, sha256: str, target: Path) -> Path:
        """Download the archive with a SHA-256 into a folder.

        :param package: name of the source package.
        :raises MirrorError: says where it was looked for, and what was there.
        """
        if not shutil.which("apt-get"):
            raise MirrorError("there is no apt-get on this system")
        held = self._find(package, sha256)
        done = self._run(
            *("apt-get", "source", "--download-only", "--tar-only", "--quiet=2"),
            f"{package}={held.version}",
            folder=target,
        )
        path = target / held.filename
        if not path.is_file() or sha256_of(path) != sha256:
            raise MirrorError(
                f"{package} {held.version} could not be downloaded: {_last_line(done)}"
            )
        return path

    def _find(self, package: str, sha256: str) -> _Held:
        """Return the version of a package that has the archive."""
        self._update()
        listing = self._run("apt-cache", "showsrc", package).stdout
        versions = []
        for paragraph in re.split(r"\n\s*\n", listing):
            version = re.search(r"^Version: (\S+)$", paragraph, re.MULTILINE)
            if not version:
                continue
            versions.append(version[1])
            held = re.search(rf"^ {sha256} \d+ (\S+)$", paragraph, re.MULTILINE)
            if held:
                return _Held(version[1], held[1])
        if versions:
            text = f"{package} has other archives (versions {', '.join(sorted(set(versions)))})"
        else:
            text = f"there is no source package {package}{self._trouble}"
        raise MirrorError(text)

    def _update(self) -> None:
        """Fetch the lists of source packages, once."""
        if self._folder:
            return
        self._folder = tempfile.TemporaryDirectory(prefix="wendelin-apt-")
        work = Path(self._folder.name)
        for name in ("state/lists/partial", "cache/archives/partial", "sources"):
            (work / name).mkdir(parents=True)
        if not write_sources(self._apt, work / "sources"):
            self._trouble = f": {self._apt} names no package sources"
            return
        (work / "apt.conf").write_text(_CONFIGURATION.format(work=work))
        done = self._run("apt-get", "update", "--quiet=2")
        if done.returncode:
            self._trouble = f" in the lists that could be fetched ({_last_line(done)})"

    def _run(self, *command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of apt with the private configuration."""
        assert self._folder  # noqa: S101
        return subprocess.run(
            command,
            cwd=folder or self._folder.name,
            env=os.environ | {"APT_CONFIG": f"{self._folder.name}/apt.conf", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def write_sources(apt: Path, folder: Path) -> int:
    """Write apt's configured sources as sources of source packages; return how many files."""
    count = 0
    lists = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]
    for path in lists:
        if path.is_file():
            lines = [
                re.sub(r"^deb(-src)?\s", "deb-src ", line)
                for line in path.read_text().splitlines()
                if re.match(r"deb(-src)?\s", line)
            ]
            if lines:
                (folder / path.with_suffix(".list").name).write_text("\n".join(lines) + "\n")
                count += 1
    for path in sorted((apt / "sources.list.d").glob("*.sources")):
        text = path.read_text()
        if re.search(r"^Types:.*\bdeb\b", text, re.MULTILINE):
            changed = re.sub(r"^Types:.*$", "Types: deb-src", text, flags=re.MULTILINE)
            (folder / path.name).write_text(changed)
            count += 1
    return count


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last thing that a program said."""
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1].strip() if lines else f"exit status {done.returncode}"
