# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What commands have in common that ask the master for something."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from slapos.cli.config import ClientConfigCommand, ConfigError

from slapos_wendelin.cli.connection import client_settings, connect
from slapos_wendelin.errors import MissingRequirementError, ParameterError
from slapos_wendelin.master.client import MasterClient


class MasterCommand(ClientConfigCommand):
    """A command that calls the master of the client's configuration."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the stock options and --json."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")
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
