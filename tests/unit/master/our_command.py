# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The slapos command with this project's commands in it."""

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
from slapos_wendelin.cli import entry
results = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["slapos", *command]
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = entry.main()
        except SystemExit as end:
            status = end.code
    results.append([status, output.getvalue(), errors.getvalue()])
print(json.dumps(results))
"""


@dataclass(frozen=True)
class Result:
    """What a command did."""

    status: int
    output: str
    errors: str

    @property
    def document(self):
        """The JSON document that it printed."""
        return json.loads(self.output)


def run(folder: Path, url: str, *commands: list[str], columns: int = 100) -> list[Result]:
    """Run slapos commands one after another and return what each did."""
    configuration = folder / "client.cfg"
    configuration.write_text(f"[slapos]\nmaster_url = {url}\n[slapconsole]\n")
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _RUN_ALL, json.dumps(commands)],
        check=True,
        env=os.environ
        | {"SLAPOS_CLIENT_CONFIGURATION": str(configuration), "COLUMNS": str(columns)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
    )
    return [Result(*each) for each in json.loads(result.stdout)]
