# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The slapos command of this project, run as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

#: Runs several commands in one process, which saves the start of the command's many imports.
_RUN_ALL = """
import contextlib, io, json, sys
from slapos_wendelin.cli.entry import main
results = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["slapos", *command]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main()
        except SystemExit as end:
            status = end.code
    results.append([status or 0, out.getvalue(), err.getvalue()])
json.dump(results, sys.stdout)
"""


@dataclass(frozen=True)
class Result:
    """What a command ended with and wrote."""

    status: int
    out: str
    err: str

    @property
    def document(self):
        """What it wrote for programs."""
        return json.loads(self.out)


class Slapos:
    """The command, with the configuration of a client of one master."""

    def __init__(self, folder: Path, url: str, columns: int = 100) -> None:
        self.folder = folder
        self.configuration = folder / "client.cfg"
        self.configuration.write_text(f"[slapos]\nmaster_url = {url}\n[slapconsole]\n")
        self.environment = os.environ | {
            "SLAPOS_CLIENT_CONFIGURATION": str(self.configuration),
            "HOME": str(folder),
            "COLUMNS": str(columns),
        }

    def __call__(self, *arguments: object) -> Result:
        """Run one command."""
        return self.all([str(each) for each in arguments])[0]

    def all(self, *commands: list[str]) -> list[Result]:
        """Run several commands one after another."""
        output = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _RUN_ALL, json.dumps(commands)],
            check=True,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=600,
        ).stdout
        return [Result(*each) for each in json.loads(output)]


def run_commands(folder: Path, url: str, *commands: list[str], columns: int = 100) -> list[Result]:
    """Run commands one after another, as a client of a master, and return what each did."""
    return Slapos(folder, url, columns).all(*commands)
