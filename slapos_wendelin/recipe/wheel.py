# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipe ``slapos_wendelin:wheel``: one wheel, built from a patched source archive or a folder."""

import contextlib
import hashlib
import logging
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from packaging.tags import interpreter_name, interpreter_version
from packaging.utils import canonicalize_name
from packaging.version import Version

from slapos_wendelin.buildout.errors import ProfileError
from slapos_wendelin.recipe import index, program, source
from slapos_wendelin.recipe.build_platform import build_platform
from slapos_wendelin.recipe.resource import (
    option_is_true,
    option_lines,
    option_variables,
    read_resource,
)
from slapos_wendelin.recipe.shared import SharedPart

#: Raised when the same inputs give another wheel.
_RECIPE_VERSION = 1

#: 1980-01-01, the first time that the entries of a zip file can have.
_SOURCE_DATE_EPOCH = "315532800"

#: The tag of a wheel with compiled modules, in profiles that are for every Python and machine.
_NATIVE = "native"


class Recipe:
    """Build a wheel with the toolkit's own setuptools, without network.

    Options: either ``requirement`` (NAME==VERSION) and ``sha256`` of its source archive, or
    ``path``, the folder of a project. ``patches``: one ``FILE#MD5`` a line. ``patch-options``:
    ``-p1`` unless given. ``version``: that the patches give the project, when it is another.
    ``tag``: of the wheel, ``py3-none-any`` unless given; ``native`` for a wheel with compiled
    modules, which is for this Python and this system. ``environment``: ``NAME = VALUE`` a line,
    for the compiler. ``shared``: true unless given. Gives ``wheel`` (path of the file) and
    ``location`` (its folder).
    """

    def __init__(self, buildout: Any, name: str, options: Any) -> None:
        self.name = name
        self.log = logging.getLogger(name)
        self.section = buildout["buildout"]
        self.offline = buildout.offline
        self.options = options
        if ("path" in options) == ("requirement" in options):
            raise ProfileError(f"[{name}] needs one of the options path and requirement")
        self.path = self._project_folder() if "path" in options else None
        self.patch_options = options.get("patch-options", "-p1").split()
        self.patches = [
            (reference.partition("#")[0], read_resource(self.section, reference))
            for reference in option_lines(options.get("patches", ""))
        ]
        self.environment = option_variables(options, "environment")
        self.part = SharedPart(
            self.section,
            name,
            shared=option_is_true(options, "shared", default=True),
            identity=self._identity(),
        )
        options["location"] = str(self.part.location)
        options["wheel"] = str(self.part.location / self._filename())

    def install(self) -> list[str]:
        """Build the wheel unless it is there."""
        self.part.build(self._build)
        return self.part.installed()

    update = install

    def _project_folder(self) -> Path:
        """Return the folder of option ``path``."""
        path = self.options["path"]
        if "://" in path:
            raise ProfileError(
                f"[{self.name}] path is {path}, but a project can only be built from a folder",
                "use the profile from a checkout of its repository",
            )
        return Path(path).resolve()

    def _identity(self) -> dict[str, Any]:
        """Return what decides the wheel's content."""
        if self.path:
            origin = {"project": source.project_digest(self.path)}
        else:
            origin = {"requirement": self.options["requirement"], "sha256": self.options["sha256"]}
        native = {"platform": build_platform("cc")} if self._is_native else {}
        if self.environment:
            native |= {"environment": self.environment}
        return (
            origin
            | native
            | {
                "recipe": f"slapos_wendelin:wheel {_RECIPE_VERSION}",
                "filename": self._filename(),
                "patches": [hashlib.sha256(content).hexdigest() for _, content in self.patches],
                "patch-options": self.patch_options,
                "python": f"{sys.version_info.major}.{sys.version_info.minor}",
                "setuptools": installed_version("setuptools"),
            }
        )

    @property
    def _is_native(self) -> bool:
        """Whether the wheel has compiled modules."""
        return self.options.get("tag") == _NATIVE

    def _filename(self) -> str:
        """Return the name that the wheel will have."""
        if self.path:
            name, version = source.project_name_and_version(self.path)
        else:
            name, version = index.parse_pin(self.options["requirement"])
            version = self.options.get("version", version)
        tag = _native_tag() if self._is_native else self.options.get("tag", "py3-none-any")
        return f"{canonicalize_name(name).replace('-', '_')}-{Version(str(version))}-{tag}.whl"

    def _build(self, location: Path, lock: int) -> None:
        """Fill the part's folder with the wheel."""
        with _work_folder(location) as work:
            tree = self._source_tree(work)
            for name, content in self.patches:
                self._patch(tree, name, content, lock)
            self.log.info("building %s", self._filename())
            self._pip_wheel(tree, location, lock)
        built = [path.name for path in location.glob("*.whl")]
        if built != [self._filename()]:
            raise ProfileError(
                f"[{self.name}] built {' '.join(built) or 'nothing'}, not {self._filename()}",
                "set the option tag, and let the project's version be fixed",
            )

    def _source_tree(self, work: Path) -> Path:
        """Return a folder with the source, which may be written to."""
        if self.path:
            tree = work / "project"
            source.copy_project(self.path, tree)
            return tree
        requirement = self.options["requirement"]
        cache = self.section.get("download-cache")
        self.log.info("fetching the source of %s", requirement)
        archive = index.fetch_source_archive(
            requirement,
            self.options["sha256"],
            Path(cache) if cache else None,
            offline=self.offline,
        )
        return source.unpack(archive, f"the source archive of {requirement}", work / "source")

    def _patch(self, tree: Path, name: str, content: bytes, lock: int) -> None:
        """Apply one patch, or say which file of it does not fit."""
        self.log.info("applying %s", Path(name).name)
        copy = tree.parent / "patch"
        copy.write_bytes(content)
        command = ["patch", "--batch", "--forward", "--no-backup-if-mismatch", "--reject-file=-"]
        program.run(
            [*command, f"--input={copy}", *self.patch_options],
            doing=f"[{self.name}] applying the patch {name}",
            log=self.log,
            folder=tree,
            lock=lock,
            environment=program.clean_environment() | {"LC_ALL": "C"},
        )

    def _pip_wheel(self, tree: Path, location: Path, lock: int) -> None:
        """Build with the backend that the project names, which must be in the toolkit."""
        command = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "wheel"]
        flags = ["--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir"]
        program.run(
            [*command, *flags, f"--wheel-dir={location}", tree],
            doing=f"[{self.name}] building the wheel",
            log=self.log,
            folder=tree,
            lock=lock,
            umask=0o022,
            environment=program.clean_environment()
            | self.environment
            | {"SOURCE_DATE_EPOCH": _SOURCE_DATE_EPOCH, "PYTHONHASHSEED": "0"},
        )


def _native_tag() -> str:
    """Return the tag of a wheel that setuptools compiles here."""
    python = interpreter_name() + interpreter_version()
    system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return f"{python}-{python}-{system}"


@contextlib.contextmanager
def _work_folder(location: Path) -> Iterator[Path]:
    """Make a folder inside the part, so that what a killed build leaves goes with the part."""
    work = location / ".work"
    (work / "source").mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work)
