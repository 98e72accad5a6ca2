# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipe ``slapos_wendelin:compile``: slapos.recipe.cmmi for programs that take long to compile."""

import hashlib
import logging
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from slapos.recipe import cmmi
from zc.buildout import UserError
from zc.buildout.download import Download

from slapos_wendelin.build_settings import COMPILE, NEVER, VARIABLES
from slapos_wendelin.buildout.base_location import OPTION as BASE_LOCATION
from slapos_wendelin.buildout.errors import ProfileError
from slapos_wendelin.compiled.cache import COMPILER_FILE, RECIPE
from slapos_wendelin.files import sha256_of
from slapos_wendelin.recipe.build_platform import (
    build_platform,
    compiler_version,
    missing_packages,
)
from slapos_wendelin.recipe.compiler_output import (
    is_out_of_memory,
    is_out_of_space,
    percentage,
    useful_lines,
)
from slapos_wendelin.recipe.index import without_password
from slapos_wendelin.recipe.mirrored import MIRROR_VARIABLE, fetch_from_mirror
from slapos_wendelin.recipe.program import clean_environment
from slapos_wendelin.recipe.resource import option_is_true, option_lines, read_resource
from slapos_wendelin.recipe.shared import SharedPart, out_of_space
from slapos_wendelin.recipe.stored import restore

#: Raised when the same options give another result.
_RECIPE_VERSION = 1

#: How many compilers run at a time; without it as many as there are processors and memory for.
JOBS_VARIABLE = "WENDELIN_JOBS"

#: Whether programs may be compiled at all, or must be taken from a cache.
COMPILE_VARIABLE = VARIABLES[COMPILE]

#: Bytes that a compiler of C++ may need.
_MEMORY_OF_A_JOB = 1024**3

#: Hundredths between two lines of progress, and seconds after which there is one anyway.
_STEP = 5
_PAUSE = 30

#: Variables that would change what is compiled without being seen in the profile.
_FOREIGN = {"CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "DESTDIR", "MAKEFLAGS"}

#: Options that do not decide the result.
_INDIFFERENT = {"recipe", "url", "shared", "debian-source", "debian-packages"}


class Recipe(cmmi.Recipe):
    """Compile a program with slapos.recipe.cmmi, whose options this takes.

    More options: ``sha256`` (required) of the archive that ``url`` names; ``debian-source`` and
    ``debian-packages`` are read by ``./wendelin mirror`` and ``./wendelin doctor``. ``shared`` is
    true unless given. Options may name ``%(jobs)s``, the number of compilers to run at a time
    (environment variable WENDELIN_JOBS). What slapos.recipe.cmmi lacks:

    - The folder's name depends on the distribution and the compiler too. A lock, which the
      compiler inherits, keeps two builds apart even when buildout is killed, and the part counts as
      built only after all of it is on the disk.
    - Progress is a percentage in the log. A failure shows the lines that matter; the whole output
      is in a file that stays.
    - A result that another computer has built is taken from a cache (environment variables
      WENDELIN_COMPILED and WENDELIN_COMPILED_KEYS); with WENDELIN_COMPILE=never from there only.
    - The archive may come from a mirror (WENDELIN_MIRROR) instead of its URL.
    """

    keep_on_error = False

    def __init__(self, buildout: Any, name: str, options: Any) -> None:
        self.section = buildout["buildout"]
        self.sha256 = _required(name, options, "sha256").lower()
        self.url = _required(name, options, "url")
        self.patches = [
            read_resource(self.section, reference) for reference in option_lines_of_patches(options)
        ]
        self.part = SharedPart(
            self.section,
            name,
            shared=option_is_true(options, "shared", default=True),
            identity=self._identity(buildout, options),
        )
        options["shared"] = "false"  # slapos.recipe.cmmi is not to choose a folder too
        super().__init__(buildout, name, options)
        self.log = logging.getLogger(name)
        # It would say that it leaves the folder of a failed build, which is removed.
        self.logger = logging.getLogger(f"{name}.cmmi")
        self.logger.setLevel(logging.CRITICAL)

    @property
    def location(self) -> str:
        """The part's folder."""
        return str(self.part.location)

    @location.setter
    def location(self, _value: str) -> None:
        """Leave it: slapos.recipe.cmmi would choose another."""

    @property
    def output(self) -> Path:
        """The file of all that a failed build said."""
        return self.part.location.with_name(f"{self.part.location.name}.log")

    def install(self, update: bool = False) -> list[str]:  # noqa: ARG002
        """Compile the program unless it is there."""
        self.part.build(self._make)
        return self.part.installed()

    def update(self) -> None:
        """Compile the program if it is gone."""
        self.part.build(self._make)

    def run(self, cmd: str) -> None:
        """Run a shell command of slapos.recipe.cmmi."""
        lines: list[str] = []
        progress = _Progress(self.log)
        with self.output.open("a", buffering=1) as log:
            log.write(f"$ {cmd}\n")
            process = subprocess.Popen(
                ["/bin/sh", "-e", "-c", cmd],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                pass_fds=[self._lock],
            )
            with process as running:
                for line in running.stdout or ():
                    log.write(line)
                    lines.append(line.rstrip())
                    progress.note(lines[-1])
        if process.returncode:
            raise self._failure(lines)

    def _identity(self, buildout: Any, options: Any) -> dict[str, Any]:
        """Return what decides the result."""
        environment = options.get("environment", "").strip()
        named = environment and "=" not in environment
        base = options.get(BASE_LOCATION)
        return {
            "recipe": f"{RECIPE}{_RECIPE_VERSION}",
            "options": {
                key: " ".join((value.replace(base, "BASE") if base else value).split())
                for key, value in sorted(options.items())
                if key not in _INDIFFERENT and not key.startswith("_") and key != "patches"
            },
            "environment": dict(buildout[environment]) if named else environment,
            "patches": [hashlib.sha256(content).hexdigest() for content in self.patches],
            "platform": build_platform(),
        }

    def _make(self, location: Path, lock: int) -> None:
        """Fill the part's folder: from a cache, or by compiling."""
        compiler = compiler_version()
        if restore(location, compiler, os.environ, self.log):
            return
        if os.environ.get(COMPILE_VARIABLE) == NEVER:
            raise ProfileError(
                f"[{self.name}] is not built, and {COMPILE_VARIABLE}={NEVER} forbids to compile it",
                "take it from a cache (slapos cache pull), or compile it: ./wendelin build PROFILE",
            )
        self._lock = lock
        self.output.unlink(missing_ok=True)
        archive, is_temporary = self._archive()
        jobs = job_count(os.environ)
        self.log.info("compiling with %d jobs; all output: %s", jobs, self.output)
        # A plain copy: what follows is no option of the profile.
        self.options = dict(self.options) | {"url": str(archive), "jobs": str(jobs)}
        self.environ = _environment(self._environ)
        try:
            self._install()
        finally:
            if is_temporary:
                archive.unlink()
        (location / COMPILER_FILE).write_text(compiler + "\n")
        self.output.unlink(missing_ok=True)

    def _archive(self) -> tuple[Path, bool]:
        """Return the source archive, its checksum checked, and whether it is to be removed."""
        self.log.info("fetching %s", self.url)
        mirrored = fetch_from_mirror(self.url, self.sha256, os.environ)
        path, is_temporary = mirrored or self._download()
        digest = sha256_of(path)
        if digest == self.sha256:
            return path, is_temporary
        # What buildout has downloaded is a copy too.
        own = is_temporary or not (mirrored or _is_local(self.url))
        if own:
            path.unlink()
        mirror = without_password(os.environ.get(MIRROR_VARIABLE, ""))
        place = f"{self.url} of the mirror {mirror}" if mirrored else self.url
        raise ProfileError(
            f"{place} has sha256 {digest}, not {self.sha256}",
            "nothing was built from it"
            + (" and the copy was removed" if own else "")
            + "; find out why it differs, or correct the profile",
        )

    def _download(self) -> tuple[Path, bool]:
        """Return what the URL names, or buildout's copy of it, and whether it is to be removed."""
        try:
            found, is_temporary = Download(self.section, hash_name=True)(self.url)
        except (OSError, UserError) as error:
            raise ProfileError(
                f"cannot fetch {self.url}: {error}",
                "connect this machine, or fill a mirror where there is a network "
                "(./wendelin mirror FOLDER), then ./wendelin build --from FOLDER PROFILE here",
            ) from error
        return Path(found), bool(is_temporary)

    def generate_build_environment_script(
        self,
        configure_cmd: str,
        make_cmd: str,
        install_cmd: str,
    ) -> None:
        """Write none: the folder that it would be in is removed."""

    def _failure(self, lines: list[str]) -> ProfileError:
        """Return the error of a command that failed."""
        location = self.part.location
        if is_out_of_space(lines):
            return out_of_space(location)
        text = "".join(f"\n  {line}" for line in useful_lines(lines))
        packages = self.options.get("debian-packages", "").split()
        lacking = missing_packages(packages)
        if lacking:
            remedy = f"apt-get install --yes --no-install-recommends {' '.join(lacking)}"
            remedy = (
                f"this machine lacks packages, as root: {remedy}; all output is in {self.output}"
            )
        elif is_out_of_memory(lines):
            remedy = f"this machine has too little memory for so many compilers: {JOBS_VARIABLE}=1"
        else:
            remedy = f"all output is in {self.output}"
        return ProfileError(f"[{self.name}] compiling failed:{text}\n", remedy)

    def check_promises(self) -> bool:
        """Refuse a result that lacks what the option ``promises`` names."""
        lacking = [
            path
            for path in option_lines(self.options.get("promises", ""))
            if not Path(path).exists()
        ]
        if lacking:
            raise ProfileError(
                f"[{self.name}] was compiled, but there is no {' and no '.join(lacking)}",
                "correct the options of the profile",
            )
        return True


def _environment(variables: Any) -> dict[str, str]:
    """Return the environment of a build: the option ``environment``, and little else.

    In values, ``%(NAME)s`` is a variable of this process.
    """
    kept = {name: value for name, value in clean_environment().items() if name not in _FOREIGN}
    return kept | {name: variables[name] % os.environ for name in variables}


class _Progress:
    """Turns the steps of a build into lines of the log."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._told = 0
        self._begin = self._last = time.monotonic()

    def note(self, line: str) -> None:
        """Read one line of output; tell how far the build is when there is something to tell."""
        done = percentage(line)
        if done is None or done <= self._told:
            return
        now = time.monotonic()
        if done < self._told + _STEP and done < 100 and now < self._last + _PAUSE:  # noqa: PLR2004
            return
        self._told, self._last = done, now
        self._log.info("compiling: %d %% after %d s", done, now - self._begin)


def option_lines_of_patches(options: Any) -> list[str]:
    """Return the patches of a profile: ``FILE#MD5``, separated by white space."""
    return options.get("patches", "").split()


def job_count(environment: Mapping[str, str]) -> int:
    """Return how many compilers to run at a time.

    :raises ProfileError: WENDELIN_JOBS is no number from 1.
    """
    given = environment.get(JOBS_VARIABLE, "")
    if given:
        if not given.isdecimal() or not int(given):
            raise ProfileError(
                f"{JOBS_VARIABLE}={given} is no number of jobs", "set it to 1 or more"
            )
        return int(given)
    memory = psutil.virtual_memory().available
    return max(1, min(len(os.sched_getaffinity(0)), memory // _MEMORY_OF_A_JOB))


def _is_local(url: str) -> bool:
    """Whether a URL names a file of this machine, which is used where it is."""
    return "://" not in url or url.startswith("file:")


def _required(name: str, options: Any, option: str) -> str:
    """Return an option that must be there."""
    value = options.get(option, "").strip()
    if not value:
        raise ProfileError(f"[{name}] has no option {option}", f"add {option} = ... to the profile")
    return value
