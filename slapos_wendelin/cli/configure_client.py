# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos configure client`` that joins a master of ours with a token.

With ``--master-url-web`` it is slapos.core's, for other masters; that one is checked too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from slapos.cli.configure_client import ConfigureClientCommand as StockConfigureClientCommand

from slapos_wendelin.errors import MissingRequirementError, ParameterError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.joining import join

_CONFIGURATION = """\
[slapos]
master_url = {url}

[slapconsole]
cert_file = {certificate}
key_file = {key}
"""


class ConfigureClientCommand(StockConfigureClientCommand):
    """join a master with a token, and write the configuration of this client."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the stock options and the authority's file."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        join_ours_by_default(parser)
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Get a certificate and write the configuration."""
        if args.master_url_web:
            super().take_action(args)
            return 0
        path = Path(self.config_path(args)).absolute()
        url = required_url(args)
        certificate, key = path.with_name("client.crt"), path.with_name("client.key")
        for each in (path, certificate):
            if each.exists():
                raise ParameterError(
                    f"{each} is there already: this client has joined a master",
                    "remove it first, or write another configuration with --cfg",
                )
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        answer = join(
            url, asked_token(args), certificate=certificate, key=key, ca_file=args.ca_file
        )
        text = _CONFIGURATION.format(url=url, certificate=certificate, key=key)
        write_atomically(path, text, secret=True)
        print(f"Joined {url} as user {answer['name']}.")
        print(f"  configuration  {path}")
        print(f"  certificate    {certificate}, renewed before {answer['not_after']}")
        return 0


def join_ours_by_default(parser: argparse.ArgumentParser) -> None:
    """Let the stock options mean a master of ours, and add that of the authority's file."""
    parser.set_defaults(master_url=None, master_url_web=None)
    for action in parser._actions:  # noqa: SLF001 (argparse has no other way)
        if action.dest == "master_url":
            action.help = "URL of the master"
        elif action.dest == "master_url_web":
            action.help = "URL of another SlapOS master that gives out certificates itself"
        elif action.dest == "token":
            action.help = "token of an operator; asked for when it is left out"
    parser.add_argument(
        "--ca-file",
        type=Path,
        help="certificate of the master's authority (default: what the token says)",
    )


def required_url(args: argparse.Namespace) -> str:
    """Return the master's URL."""
    if not args.master_url:
        raise ParameterError("no master is named", "add --master-url https://HOST:PORT/")
    return str(args.master_url)


def asked_token(args: argparse.Namespace) -> str:
    """Return the token of the command line, or ask for it."""
    if args.token:
        return str(args.token)
    if not sys.stdin.isatty():
        raise MissingRequirementError(
            "there is no token, and no terminal to ask for it", "add --token TOKEN"
        )
    return input("Token: ")
