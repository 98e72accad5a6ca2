# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What commands have in common that ask the master for something."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, NoReturn

from slapos.cli.config import ClientConfigCommand, ConfigError

from slapos_wendelin.cli.connection import client_settings, connect
from slapos_wendelin.errors import MissingRequirementError, ParameterError
from slapos_wendelin.master.client import MasterClient


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
    """A command that calls the master of the client's configuration."""

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

    def master(self, args: argparse.Namespace) -> MasterClient:
        """Return a client of the master.

        :raises ParameterError: when there is no usable configuration.
        """
        try:
            configuration = self.fetch_config(args)
        except ConfigError as error:
            raise ParameterError(
                str(error), "make it with `slapos configure client`, or name another with --cfg"
            ) from error
        return connect(client_settings(args, configuration))


class JsonCommand(ClientCommand):
    """A command that prints for people, or JSON for programs."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take --json too."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")
        return parser


def print_json(document: Any) -> None:
    """Print a document for programs."""
    json.dump(document, sys.stdout, indent=2)
    print()


def confirm(word: str, what: str) -> bool:
    """Ask on the terminal whether to go on; return whether the word was typed.

    :param what: what is going to happen, one sentence.
    :raises MissingRequirementError: when there is no terminal.
    """
    if not sys.stdin.isatty():
        raise MissingRequirementError(
            f"{what} There is no terminal to ask on", "add --yes if that is what you want"
        )
    print(what, file=sys.stderr)
    print(f"Type {word} to go on: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() == word
