# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install the toolkit into a folder of its own, named by what it is; then switch to it at once."""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

from slapos_wendelin.errors import CommandError
from slapos_wendelin.onhost.processes import is_in_use
from slapos_wendelin.onhost.session import Session

#: Marks a folder in which everything is installed.
_COMPLETE = ".complete"
_CURRENT = "current"
#: Some packages have files for Python 2 in them, which nobody imports.
_COMPILE = """
import compileall, re, sys
compileall.compile_dir(sys.argv[1], quiet=2, rx=re.compile(sys.argv[2]))
"""
#: What no computer imports; compiling all would double the time of the installation.
_NOT_ON_NODES = (
    r"/tests?/|/testing/|/site-packages/"
    r"(sqlalchemy|pip|pygments|wcwidth|prompt_toolkit|alembic|psycopg|hypothesis)/"
)


class Toolkit:
    """The toolkit that this host is to have.

    :param identity: names it, by all that it consists of.
    """

    def __init__(self, prefix: Path, python: str, identity: str) -> None:
        self.prefix = prefix
        self._python = python
        #: Requirements with hashes: ``lock`` and ``project`` are what is installed, ``from_index``
        #: is what comes from the network.
        self._requirements: dict[str, str] = {}
        self.folder = prefix / "versions" / identity

    @property
    def current(self) -> Path:
        """The name under which the toolkit in use is found."""
        return self.prefix / _CURRENT

    def is_installed(self) -> bool:
        """Say whether it is there and in use."""
        return (self.folder / _COMPLETE).exists() and self.current.resolve() == self.folder

    def install(self, session: Session) -> None:
        """Install it unless it is there, and switch to it. May be repeated at any time."""
        if not (self.folder / _COMPLETE).exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self._fill(session)
            session.run(["sync", "-f", self.folder], doing="writing the toolkit")
            (self.folder / _COMPLETE).touch()
        switched = self.current.with_name(f"{_CURRENT}.new")
        switched.unlink(missing_ok=True)
        switched.symlink_to(self.folder)
        switched.replace(self.current)

    def remove_others(self, software: Path) -> None:
        """Remove what earlier joins have installed and nothing uses any more.

        :param software: the folder of releases; each is used with the toolkit that has built it.
        """
        builders = [path.read_text(errors="replace") for path in software.glob("*/bin/buildout")]
        for each in self.folder.parent.iterdir():
            is_used = any(f"{each}/" in text for text in builders) or is_in_use(str(each))
            if each != self.folder and not is_used:
                shutil.rmtree(each, ignore_errors=True)

    def _fill(self, session: Session) -> None:
        """Make the venv."""
        wheels = self.folder / "wheels"
        wheels.mkdir()
        session.say("say", text="receiving wheels")
        self._requirements = session.ask("wheels")
        _unpack(session, wheels)
        if self._requirements["from_index"]:
            self._download(session, wheels)
        else:
            make = [self._python, "-m", "venv", "--without-pip", self.folder]
            session.run(make, doing="making the venv")
        session.say("say", text="installing wheels")
        uv = self._uv(wheels)
        lock, project = self.folder / "lock.txt", self.folder / "project.txt"
        lock.write_text(self._requirements["lock"])
        project.write_text(self._requirements["project"])
        install = [uv, "pip", "install", "--python", self.folder / "bin" / "python"]
        install += ["--no-config", "--no-cache", "--offline", "--no-index", "--no-deps"]
        install += ["--find-links", wheels, "--require-hashes", "--reinstall"]
        install += ["--link-mode", "copy"]
        # Two packages bring a program `slapos`: ours comes last.
        for requirements in (lock, project):
            session.run([*install, "-r", requirements], doing="installing the toolkit")
        # Users of partitions cannot write byte code beside the modules; each start would compile.
        python = self.folder / "bin" / "python"
        modules = next((self.folder / "lib").glob("python3*/site-packages"))
        compiling = [python, "-c", _COMPILE, modules, _NOT_ON_NODES]
        session.run(compiling, doing="compiling the toolkit")
        session.run([self.folder / "bin" / "slapos", "--version"], doing="trying the toolkit")
        shutil.rmtree(wheels)
        uv.unlink()

    def _download(self, session: Session, wheels: Path) -> None:
        """Get from the index, as this host's pip is configured, what was not sent."""
        session.say("say", text="downloading wheels")
        session.run([self._python, "-m", "venv", self.folder], doing="making the venv")
        requirements = self.folder / "download.txt"
        requirements.write_text(self._requirements["from_index"])
        download = [self.folder / "bin" / "pip", "download", "--quiet", "--no-deps"]
        download += ["--no-cache-dir", "--disable-pip-version-check", "--only-binary=:all:"]
        download += ["--require-hashes", "--dest", wheels, "-r", requirements]
        try:
            session.run(download, doing="downloading the toolkit")
        except CommandError as error:
            raise CommandError(
                error.message, "mend that, or let your machine send all wheels: --offline"
            ) from error

    def _uv(self, wheels: Path) -> Path:
        """Return the program that installs: from its wheel, if that is the one of the lock."""
        found = next(wheels.glob("uv-*.whl"), None)
        if found is None:
            raise CommandError("the wheels of the toolkit lack uv", "repeat the command")
        digest = hashlib.sha256(found.read_bytes()).hexdigest()
        block = re.search(r"^uv==(?:.*\\\n)*.*", self._requirements["lock"], re.MULTILINE)
        if block is None or f"sha256:{digest}" not in block[0]:
            raise CommandError(
                f"{found.name} is not the one of the lock", "empty the cache of wheels and repeat"
            )
        program = self.folder / "uv"
        with zipfile.ZipFile(found) as archive:
            name = next(each for each in archive.namelist() if each.endswith("/scripts/uv"))
            with archive.open(name) as source, program.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        program.chmod(0o755)
        return program


def _unpack(session: Session, folder: Path) -> None:
    """Unpack the stream of wheels."""
    with session.data() as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|gz") as archive:
                for member in archive:
                    source = archive.extractfile(member)
                    if source is not None:
                        # Whatever the archive says, nothing goes elsewhere.
                        with (folder / Path(member.name).name).open("wb") as copy:
                            shutil.copyfileobj(source, copy, 1 << 20)
        except tarfile.TarError as error:
            raise CommandError(
                f"the wheels did not arrive whole: {error}", "repeat the command"
            ) from error
        finally:
            while stream.read(1 << 20):
                pass
