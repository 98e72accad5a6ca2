# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the three computers: their folders, their slapos.cfg, their partitions."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

from slapos_wendelin.build_checks import check_settings
from slapos_wendelin.build_settings import VARIABLES
from slapos_wendelin.computer_files import ComputerFiles
from slapos_wendelin.errors import CommandError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.local.home import PARTITION_COUNT, Home


def configure_computer(home: Home, name: str) -> None:
    """Write the files that slapformat and slapgrid read. Safe to repeat."""
    folder = home.computer(name)
    certificates = home.partition_certificates(name)
    certificates.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (folder / "soft", folder / "inst", home.shared_parts, certificates):
        path.mkdir(parents=True, exist_ok=True)
    files = ComputerFiles(
        name=name,
        master=home.master_url,
        authority=home.authority,
        certificate=home.member(name).certificate,
        key=home.member(name).key,
        partition_certificates=certificates,
        folder=folder,
        pid_files=folder,
        shared_parts=home.shared_parts,
        definition=folder / "definition.cfg",
        addresses=tuple(home.partition_address(name, each) for each in range(PARTITION_COUNT)),
        user=getpass.getuser(),
        builds=build_settings_here(),
    )
    # A cache or a mirror may be named with its password.
    write_atomically(home.computer_configuration(name), files.settings(), secret=True)
    write_atomically(files.definition, files.described(home.own_address))


def build_settings_here() -> dict[str, str]:
    """Return where builds take things from, as the environment variables of this process say.

    :raises ParameterError: a variable says what cannot be.
    """
    given = {option: os.environ.get(name, "") for option, name in VARIABLES.items()}
    settings = check_settings(given, VARIABLES.__getitem__, may_hold_password=True)
    return {option: value for option, value in settings.items() if value}


def format_computer(home: Home, name: str) -> None:
    """Let slapformat make the partitions and tell the master. Raises CommandError."""
    run_slapos(home, "node", "format", "--now", "--cfg", str(home.computer_configuration(name)))


def run_slapos(home: Home, *arguments: str) -> str:
    """Run the slapos command of this toolkit and return what it said. Raises CommandError."""
    command = [str(Path(sys.executable).with_name("slapos")), *arguments]
    environment = os.environ | {"SLAPOS_CLIENT_CONFIGURATION": str(home.client_configuration)}
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        check=False,
    )
    if result.returncode:
        lines = [line for line in result.stdout.splitlines() if line.strip()]
        said = lines[-1] if lines else "it said nothing"
        raise CommandError(
            f"slapos {' '.join(arguments)} failed: {said}",
            "run it by hand: ./wendelin run slapos",
        )
    return result.stdout
