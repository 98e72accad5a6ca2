# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What our commands of the client have in common: options, errors, exit statuses."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from slapos.cli.config import ClientConfigCommand, ConfigError

from slapos_wendelin.cli.connection import client_settings, connect
from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master.client import MasterAnswerError, MasterClient

#: Exit status of a command that a user ends with Ctrl-C.
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """A parser whose complaints end with status 1: 2 has a meaning of its own here.

    Options may stand between the arguments.
    """

    def parse_args(  # pyright: ignore[reportIncompatibleMethodOverride] (one of many)
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Read the arguments, wherever the options stand."""
        return self.parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and how the command is used."""
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")


class ClientCommand(ClientConfigCommand):
    """A command that calls the master; its errors are one line and a remedy."""

    #: How errors name the command.
    name = "slapos"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the option --cfg."""
        parser = Parser(
            prog_name,
            description=self.get_description(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument(
            "--cfg",
            help=f"configuration file (default: ${self.default_config_var}"
            f" or {self.default_config_path})",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock exits instead)
        """Run the command and return its exit status."""
        try:
            return self.act(args)
        except WendelinError as error:
            details = error.details if isinstance(error, MasterAnswerError) else ()
            self._complain(error.message, error.remedy, details)
            return error.exit_status
        except ConfigError as error:
            self._complain(str(error))
            return 1

    def act(self, args: argparse.Namespace) -> int:
        """Do what the command is for; return the exit status."""
        raise NotImplementedError

    def master(self, args: argparse.Namespace) -> MasterClient:
        """Return a client of the master that the configuration names."""
        return connect(client_settings(args, self.fetch_config(args)))

    def _complain(self, message: str, remedy: str = "", details: Sequence[str] = ()) -> None:
        """Print an error."""
        print(f"{self.name}: {message}", file=sys.stderr)
        for line in details:
            print(f"  {line}", file=sys.stderr)
        if remedy:
            print(f"  remedy: {remedy}", file=sys.stderr)
