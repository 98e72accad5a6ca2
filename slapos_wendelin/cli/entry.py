# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The slapos command with our commands in it.

slapos.core and this project both ship a script ``slapos``; the toolkit installs ours last. It is
slapos.core's, but for the commands below: the order in which cliff loads two commands of one name
from entry points is not defined, so ours are put in after all others.
"""

from __future__ import annotations

import argparse
import configparser
import os
import sys
from collections.abc import Collection
from importlib.metadata import EntryPoint
from itertools import takewhile
from pathlib import Path
from typing import Any

from slapos.cli import entry

from slapos_wendelin import slap_trust
from slapos_wendelin.cli.catalog import CatalogCommand, ProductCommand
from slapos_wendelin.cli.cluster_status import StatusCommand
from slapos_wendelin.cli.computer import (
    CordonCommand,
    RemoveCommand,
    SetCommand,
    ShowCommand,
    UncordonCommand,
)
from slapos_wendelin.cli.history import HistoryCommand
from slapos_wendelin.cli.moving import DrainCommand, MoveCommand
from slapos_wendelin.cli.planning import PlanCommand
from slapos_wendelin.cli.request import RequestCommand
from slapos_wendelin.cli.rollback import RollbackCommand
from slapos_wendelin.errors import WendelinError
from slapos_wendelin.trust import AUTHORITY_VARIABLE

COMMANDS = {
    "request": RequestCommand,
    "cluster catalog": CatalogCommand,
    "cluster history": HistoryCommand,
    "cluster plan": PlanCommand,
    "cluster product": ProductCommand,
    "cluster rollback": RollbackCommand,
    "cluster move": MoveCommand,
    "cluster status": StatusCommand,
    "computer cordon": CordonCommand,
    "computer drain": DrainCommand,
    "computer remove": RemoveCommand,
    "computer set": SetCommand,
    "computer show": ShowCommand,
    "computer uncordon": UncordonCommand,
}

#: Where the commands are that are seldom needed: their many imports would slow down all the others.
RARE_COMMANDS = {
    f"master {name}": f"slapos_wendelin.cli.master:{name.capitalize()}Command"
    for name in ("backup", "check", "restore", "start", "unit")
} | {
    "cache key": "slapos_wendelin.cli.compiled:KeyCommand",
    "cache pull": "slapos_wendelin.cli.compiled:PullCommand",
    "cache push": "slapos_wendelin.cli.compiled:PushCommand",
    "certificate list": "slapos_wendelin.cli.access:CertificateListCommand",
    "certificate revoke": "slapos_wendelin.cli.access:CertificateRevokeCommand",
    "cluster certificate": "slapos_wendelin.cli.cluster_certificate:ClusterCertificateCommand",
    "cluster neo balance": "slapos_wendelin.cli.neo:BalanceCommand",
    "cluster neo cancel": "slapos_wendelin.cli.neo:CancelCommand",
    "cluster neo cells": "slapos_wendelin.cli.neo:CellsCommand",
    "cluster neo follow": "slapos_wendelin.cli.neo:FollowCommand",
    "cluster neo nodes": "slapos_wendelin.cli.neo:NodesCommand",
    "cluster neo operations": "slapos_wendelin.cli.neo:OperationsCommand",
    "cluster neo pack": "slapos_wendelin.cli.neo:PackCommand",
    "cluster neo pt": "slapos_wendelin.cli.neo:PartitionTableCommand",
    "cluster neo tweak": "slapos_wendelin.cli.neo:TweakCommand",
    "complete": "slapos_wendelin.cli.complete:CompleteCommand",
    "computer create": "slapos_wendelin.cli.create:CreateCommand",
    "computer join": "slapos_wendelin.cli.join:JoinCommand",
    "computer leave": "slapos_wendelin.cli.leave:LeaveCommand",
    "computer token": "slapos_wendelin.cli.access:ComputerTokenCommand",
    "configure client": "slapos_wendelin.cli.configure_client:ConfigureClientCommand",
    "master token": "slapos_wendelin.cli.master_token:MasterTokenCommand",
    "node status": "slapos_wendelin.cli.node_status:StatusCommand",
    "node wipe": "slapos_wendelin.cli.node_wipe:WipeCommand",
    "node register": "slapos_wendelin.cli.node_register:RegisterCommand",
    "user list": "slapos_wendelin.cli.access:UserListCommand",
    "user remove": "slapos_wendelin.cli.access:UserRemoveCommand",
    "user role": "slapos_wendelin.cli.access:UserRoleCommand",
    "user token": "slapos_wendelin.cli.access:UserTokenCommand",
}


class Application(entry.SlapOSApp):
    """slapos.core's, whose commands know the master's authority and tell our errors briefly."""

    def run(self, argv: list[str]) -> int:
        """Run a command; ``COMMAND --help`` tells of the command, not of all of them."""
        words = list(takewhile(lambda each: not each.startswith("-"), argv))
        if words and {"-h", "--help"} & set(argv):
            name = longest_command(self.command_manager.commands, words)
            if name in self.command_manager.commands:
                argv = ["help", *name.split()]
            elif name:
                return self._tell_group(name)
        return int(super().run(argv) or 0)

    def _tell_group(self, name: str) -> int:
        """Tell of the commands that begin with the same words."""
        for each in sorted(self.command_manager.commands):
            if each.startswith(f"{name} "):
                command = self.command_manager.find_command(each.split())[0](self, None)
                self.stdout.write(f"{each:<18}  {command.get_description().splitlines()[0]}\n")
        return 0

    def prepare_to_run_command(self, cmd: Any) -> None:
        """Prepare a command just before it runs."""
        super().prepare_to_run_command(cmd)
        cmd.run = _briefly(cmd.run)
        if hasattr(cmd, "fetch_config"):
            cmd.fetch_config = _ready_to_call(cmd.fetch_config)


def longest_command(commands: Collection[str], words: list[str]) -> str:
    """Return the name of a command, or of a group of them, at the beginning of some words."""
    for length in range(len(words), 0, -1):
        name = " ".join(words[:length])
        if name in commands or any(each.startswith(f"{name} ") for each in commands):
            return name
    return ""


def _briefly(run: Any) -> Any:
    """Let a command tell our errors on one line with their remedy, and others as it did."""

    def run_briefly(arguments: argparse.Namespace) -> int:
        try:
            return int(run(arguments) or 0)
        except WendelinError as error:
            print(f"slapos: {error.message}", file=sys.stderr)
            for line in getattr(error, "details", ()):
                print(f"  {line}", file=sys.stderr)
            if error.remedy:
                print(f"  remedy: {error.remedy}", file=sys.stderr)
            return error.exit_status

    return run_briefly


def _ready_to_call(fetch_config: Any) -> Any:
    """Let a command know the authority of its configuration, and renew the certificate in time.

    The programs that it starts are told the authority too.
    """

    def fetch(arguments: argparse.Namespace) -> configparser.ConfigParser:
        configuration: configparser.ConfigParser = fetch_config(arguments)
        named = configuration.get("slapos", "master_ca_file", fallback="")
        if named:
            os.environ[AUTHORITY_VARIABLE] = str(Path(named).expanduser().absolute())
        url = configuration.get("slapos", "master_url", fallback="")
        if url.startswith("https:"):
            # In clear there are no certificates, and no need for these imports.
            from slapos_wendelin.joining import renew_if_possible  # noqa: PLC0415

            files = [_path(configuration, option) for option in ("cert_file", "key_file")]
            renew_if_possible(url, certificate=files[0], key=files[1])
        return configuration

    return fetch


def _path(configuration: configparser.ConfigParser, option: str) -> Path | None:
    """Return the file that a client's or a computer's configuration names."""
    for section in ("slapconsole", "slapos"):
        named = configuration.get(section, option, fallback="")
        if named:
            return Path(named).expanduser()
    return None


def main() -> int:
    """Run the slapos command."""
    slap_trust.install()
    application = Application()
    for name, command in COMMANDS.items():
        application.command_manager.add_command(name, command)
    for name, place in RARE_COMMANDS.items():
        application.command_manager.commands[name] = EntryPoint(name, place, "slapos.cli")
    return application.run(sys.argv[1:] or ["-h"])


if __name__ == "__main__":
    sys.exit(main())
