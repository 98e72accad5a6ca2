# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adds to the installed package the files that pyproject.toml cannot describe.

One is the lock of the toolkit. The other Python reads at each start. It makes slapos.core check the
master's certificate in every program that is started with this Python, whether the program knows of
slapos_wendelin or not.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

LOCK = "toolkit.txt"
START_FILE = "slapos_wendelin.pth"
START_LINE = "import slapos_wendelin.slap_trust; slapos_wendelin.slap_trust.install()\n"


class BuildWithStartFile(build_py):
    """Builds the package and the files beside it."""

    def run(self) -> None:
        """Build; an editable installation takes such files from where others are installed to."""
        super().run()
        folder = self.build_lib
        if self.editable_mode:
            folder = self.get_finalized_command("install").install_lib
        elif Path("requirements", LOCK).exists():
            # Whoever joins computers installs there what is installed here. A release's environment
            # joins none, and is built from the package's files alone.
            shutil.copy(Path("requirements", LOCK), Path(folder, "slapos_wendelin", LOCK))
        Path(folder, START_FILE).write_text(START_LINE)


setup(cmdclass={"build_py": BuildWithStartFile})
