# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipe ``slapos_wendelin:venv``: a Python environment from hash-locked wheels."""

import hashlib
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Any

from uv import find_uv_bin

from slapos_wendelin.recipe import program
from slapos_wendelin.recipe.index import index_url
from slapos_wendelin.recipe.resource import option_is_true, option_lines, read_resource
from slapos_wendelin.recipe.shared import SharedPart, content_identity

#: Raised when the same inputs give another environment.
_RECIPE_VERSION = 1


class Recipe:
    """Make a venv with uv and the Python that runs buildout.

    Options: ``requirements``, one lock a line, each with hashes for everything it names;
    ``wheels``, wheels to add, one path a line, whose requirements the locks must hold;
    ``partial-wheels``, wheels to add of which only a part will be used, so that some of their
    requirements may be missing; ``imports``, modules to import once; ``shared``, true unless given.
    Gives ``location``, ``bin`` and ``python``.

    Importing proves that the modules load, and leaves their bytecode: users who may not write here
    would compile it at each start (3 s for the analytics environment). Compiling all files, tests
    included, costs three times as much as importing what is used.

    A venv holds absolute paths, so it is built where it stays.
    """

    def __init__(self, buildout: Any, name: str, options: Any) -> None:
        self.name = name
        self.log = logging.getLogger(name)
        self.section = buildout["buildout"]
        self.offline = buildout.offline
        self.locks = [
            (reference.partition("#")[0], read_resource(self.section, reference))
            for reference in option_lines(options["requirements"])
        ]
        self.wheels = option_lines(options.get("wheels", ""))
        self.partial_wheels = option_lines(options.get("partial-wheels", ""))
        self.imports = options.get("imports", "").split()
        self.part = SharedPart(
            self.section,
            name,
            shared=option_is_true(options, "shared", default=True),
            identity=self._identity(),
        )
        options["location"] = str(self.part.location)
        options["bin"] = str(self.part.location / "bin")
        options["python"] = str(self.part.location / "bin" / "python")

    def install(self) -> list[str]:
        """Make the venv unless it is there."""
        self.part.build(self._build)
        return self.part.installed()

    update = install

    def _identity(self) -> dict[str, Any]:
        """Return what decides the environment's content."""
        return {
            "recipe": f"slapos_wendelin:venv {_RECIPE_VERSION}",
            "requirements": [hashlib.sha256(content).hexdigest() for _, content in self.locks],
            "wheels": [content_identity(path) for path in self.wheels + self.partial_wheels],
            "imports": self.imports,
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "base": sys.base_prefix,
            "machine": platform.machine(),
        }

    def _build(self, location: Path, lock: int) -> None:
        """Fill the part's folder with the venv."""
        environment = self._environment()
        python = location / "bin" / "python"

        def uv(doing: str, *arguments: str | Path) -> None:
            program.run(
                [find_uv_bin(), *arguments],
                doing=f"[{self.name}] {doing}",
                log=self.log,
                folder=location,
                lock=lock,
                environment=environment,
            )

        uv("making the venv", "venv", "--allow-existing", f"--python={sys.executable}", location)
        install = ["pip", "install", f"--python={python}"]
        for number, (place, content) in enumerate(self.locks, 1):
            copy = location / f"requirements-{number}.txt"
            copy.write_bytes(content)
            self.log.info("installing %s", place)
            flags = ["--require-hashes", "--only-binary=:all:", f"--requirements={copy}"]
            uv(f"installing {place}", *install, *flags)

        def add(wheels: list[str]) -> None:
            if wheels:
                self.log.info("installing %s", " ".join(Path(path).name for path in wheels))
                uv("installing local wheels", *install, "--no-deps", "--no-index", *wheels)

        add(self.wheels)
        uv(
            "checking that the locks hold all that is required",
            "pip",
            "check",
            f"--python={python}",
        )
        add(self.partial_wheels)
        if self.imports:
            self._import(python, lock)

    def _import(self, python: Path, lock: int) -> None:
        """Import the modules of the option ``imports`` in one process."""
        self.log.info("importing %s", " ".join(self.imports))
        code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
        program.run(
            [python, "-I", "-c", code, *self.imports],
            doing=f"[{self.name}] importing its modules",
            log=self.log,
            folder=python.parent,
            lock=lock,
            environment=program.clean_environment(),
        )

    def _environment(self) -> dict[str, str]:
        """Return the environment for uv, which is not to follow settings of where it is started."""
        environment = program.clean_environment() | {
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_DEFAULT_INDEX": index_url(),
        }
        cache = self.section.get("download-cache")
        if cache and "UV_CACHE_DIR" not in os.environ:
            environment["UV_CACHE_DIR"] = str(Path(cache) / "uv")
        if self.offline:
            environment["UV_OFFLINE"] = "1"
        return environment
