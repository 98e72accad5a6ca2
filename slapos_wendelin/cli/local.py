# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of ``./wendelin``."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from slapos_wendelin.cli import build, mirror, tests
from slapos_wendelin.cli.outcome import outcome
from slapos_wendelin.cli.status import exit_status, print_status
from slapos_wendelin.errors import MissingRequirementError
from slapos_wendelin.local.cluster import (
    Environment,
    client_environment,
    cluster,
    programs_of,
)
from slapos_wendelin.local.home import Home
from slapos_wendelin.local.membership import connect
from slapos_wendelin.local.progress import Progress
from slapos_wendelin.local.services import Services

#: All that an environment is made of; anything else in its folder is not ours to erase.
ENTRIES = (
    *("build", "cache", "computers", "etc", "log", "master", "parts", "release", "services.log"),
    *("services.pid", "services.sock", "source", "test", "toolkit", "user", ".lock"),
)


def up(options: argparse.Namespace) -> int:
    """Bring up the environment, prove that it works and say how to go on."""
    home = Home.from_environment()
    with home.locked():
        progress = Progress()
        environment = Environment(home, options.release)
        connection = environment.up(progress)
        proof = "" if options.no_proof else environment.prove(progress, connection)
        seconds = time.monotonic() - progress.started
        if proof:
            print(proof)
        print(
            f"\nThe cluster is up after {seconds:.0f} s.\n"
            f"  ZODB        {connection['zodb-uri']}\n"
            f"  dask        {connection['dask-scheduler']}  ({connection['dask-dashboard']})\n"
            f"  NEO admin   {connection['admin']}\n"
            f"  slap master {home.master_url}\n"
            "Next:  ./wendelin status        what runs where\n"
            '       eval "$(./wendelin env)" then: slapos request wendelin-cluster\n'
            "       ./wendelin down          stop it (the data stays)"
        )
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop everything; with --erase, remove the data after asking."""
    home = Home.from_environment()
    if options.erase and not options.yes and not _confirmed(home):
        print("Nothing was changed.")
        return 1
    with home.locked():
        progress = Progress()
        with progress.step("stop the services and all nodes"):
            Services(home).stop()
        if options.erase:
            with progress.step(f"erase {home.root}"):
                _erase(home.root)
    if not options.erase:
        print(f"Stopped. The data stays in {home.root}; ./wendelin up starts it again.")
    return 0


def _confirmed(home: Home) -> bool:
    """Ask whether all data may be erased."""
    if not sys.stdin.isatty():
        raise MissingRequirementError(
            "down --erase asks before it erases, and there is no terminal to ask on",
            "add --yes if all data may go",
        )
    question = f"Erase all data of the cluster in {home.root}? Type erase to go on: "
    return input(question).strip() == "erase"


def _erase(root: Path) -> None:
    """Remove the entries of an environment, then its folder when nothing else is in it."""
    for name in ENTRIES:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    # The parent may be a folder in which only root makes and removes entries.
    if not any(root.iterdir()) and os.access(root.parent, os.W_OK):
        root.rmdir()


def status(options: argparse.Namespace) -> int:
    """Print what runs where; exit 1 when something is not well, 3 when nothing runs."""
    home = Home.from_environment()
    if not Services(home).running():
        if options.json:
            json.dump({"running": False}, sys.stdout)
        else:
            print("Nothing runs. Start with: ./wendelin up")
        return 3
    document = connect(home).status()
    if options.json:
        json.dump({"running": True, **document}, sys.stdout, indent=2)
        return exit_status(document)
    return print_status(document, Console(highlight=False))


def environment_of(home: Home) -> dict[str, str]:
    """Return the variables that ``env`` and ``run`` set: those of the release that runs."""
    folders = [str(Path(sys.executable).parent)]
    variables = {"SLAPOS_CLIENT_CONFIGURATION": str(home.client_configuration)}
    if Services(home).running():
        master = connect(home)
        root = cluster(master)
        if root:
            folders.append(str(programs_of(home, root["release_url"])))
            variables |= client_environment(home, root["connection"])
    folders.append(os.environ.get("PATH", ""))
    return variables | {"PATH": os.pathsep.join(folders)}


def env(_options: argparse.Namespace) -> int:
    """Print shell lines that set up a shell for the environment."""
    home = Home.from_environment()
    for name, value in environment_of(home).items():
        print(f"export {name}={shlex.quote(value)}")
    words = "up down status test lab doctor env run build mirror"
    print(f"complete -W '{words}' wendelin ./wendelin 2>/dev/null || true")
    print('# Use it with:  eval "$(./wendelin env)"')
    return 0


def run(options: argparse.Namespace) -> int:
    """Run a command with the environment's variables."""
    home = Home.from_environment()
    variables = os.environ | environment_of(home)
    command = options.command or ["slapos", "--help"]
    program = shutil.which(command[0], path=variables["PATH"])
    if program is None:
        raise MissingRequirementError(
            f"there is no program {command[0]!r} in the toolkit or on PATH",
            "slapos, buildout and neoctl are what most people run",
        )
    os.execve(program, command, variables)  # noqa: S606 (the user's own command, no shell)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    main_parser = argparse.ArgumentParser(prog="./wendelin")
    main_parser.add_argument("--release", type=Path, help=argparse.SUPPRESS)
    commands = main_parser.add_subparsers(required=True)

    def command(function: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        summary = (function.__doc__ or "").splitlines()[0]
        sub = commands.add_parser(function.__name__, help=summary, description=summary)
        sub.set_defaults(function=function)
        return sub

    command(up).add_argument(
        "--no-proof", action="store_true", help="do not run the example at the end"
    )
    down_parser = command(down)
    down_parser.add_argument("--erase", action="store_true", help="remove all data too")
    down_parser.add_argument("--yes", action="store_true", help="do not ask before erasing")
    command(status).add_argument("--json", action="store_true", help="for programs")
    command(env)
    command(run).add_argument("command", nargs=argparse.REMAINDER)
    build.add_arguments(command(build.build))
    mirror.add_arguments(command(mirror.mirror))
    command(tests.test).add_argument("arguments", nargs=argparse.REMAINDER)
    return main_parser


def main() -> int:
    """Run one command."""
    return outcome(parser().parse_args())
