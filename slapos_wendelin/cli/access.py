# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos computer token``, ``slapos user ...`` and ``slapos certificate ...``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from slapos_wendelin.cli.client_command import JsonCommand, confirm, print_json
from slapos_wendelin.cli.labels import add_label_option, labels_of
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.master.client import Document, MasterClient

#: Seconds of the units of time.
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

#: Wide enough that nothing is cut: people copy serial numbers.
_TABLE_WIDTH = 400

_PLACE = ("datacenter", "region", "provider", "network")


class AccessCommand(JsonCommand):
    """A command about who may call the master."""

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Do what the command is for, and print what comes of it."""
        with self.master(args) as master:
            return self.act(master, args)

    def act(self, master: MasterClient, args: argparse.Namespace) -> int:
        """Do what the command is for; return the exit status."""
        raise NotImplementedError


class ComputerTokenCommand(AccessCommand):
    """make a token with which a computer joins, once."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the computer and where it is."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "computer",
            nargs="?",
            default="",
            help="the reference that the computer will have (default: it names itself)",
        )
        for name in _PLACE:
            parser.add_argument(f"--{name}", metavar="NAME", help=f"its {name}")
        add_label_option(parser)
        parser.add_argument(
            "--replace",
            action="store_true",
            help="the computer has joined before; its certificates end when it joins again",
        )
        _add_lifetime(parser)
        return parser

    def act(self, master: MasterClient, args: argparse.Namespace) -> int:
        """Make the token and print how to use it."""
        values: dict[str, Any] = {
            name: getattr(args, name) for name in _PLACE if getattr(args, name) is not None
        }
        if args.label:
            values["labels"] = labels_of(args.label)
        answer = master.make_token(
            "computer", args.computer, lifetime=args.lifetime, replace=args.replace, **values
        )
        name = args.computer or "NAME"
        command = f"slapos node register {name} --master-url {master.url}/"
        return _print_token(answer, command, as_json=args.json)


class UserTokenCommand(AccessCommand):
    """make a token with which a user joins from one machine, once."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the user and the role."""
        parser = super().get_parser(prog_name)
        parser.add_argument("user", help="the user's name")
        parser.add_argument("--role", choices=("operator", "viewer"), help="of a new user")
        _add_lifetime(parser)
        return parser

    def act(self, master: MasterClient, args: argparse.Namespace) -> int:
        """Make the token and print how to use it."""
        answer = master.make_token("user", args.user, role=args.role or "", lifetime=args.lifetime)
        command = f"slapos configure client --master-url {master.url}/"
        return _print_token(answer, command, as_json=args.json)


class UserListCommand(AccessCommand):
    """list the users."""

    def act(self, master: MasterClient, args: argparse.Namespace) -> int:
        """Print the users."""
        return _print_table(master.users(), ("name", "role", "created_at", "removed_at"), args)


class UserRoleCommand(AccessCommand):
    """change the role of a user."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the user and the role."""
        parser = super().get_parser(prog_name)
        parser.add_argument("user", help="the user's name")
        parser.add_argument("role", choices=("operator", "viewer"))
        return parser

    def act(self, master: MasterClient, args: argparse.Namespace) -> int:
        """Change the role and print the user."""
        user = master.put_user(args.user, args.role)
        return _print_table([user], ("name", "role", "created_at", "removed_at"), args)


class UserRemoveCommand(AccessCommand):
    """take a user out: its certificates are revoked at once."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the user."""
        parser = super().get_parser(prog_name)
        parser.add_argument("user", help="the user's name")
        return parser

    def act(self, master: MasterClient, args: argparse.Namespace) -> int:
        """Take the user out and print it."""
        user = master.remove_user(args.user)
        return _print_table([user], ("name", "role", "created_at", "removed_at"), args)


class CertificateListCommand(AccessCommand):
    """list the certificates that are good, or all with --all."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take what to list."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--kind",
            choices=("user", "computer", "partition", "node", "client"),
            default="",
            help="whose certificates (default: all)",
        )
        parser.add_argument("--name", default="", help="of the user, computer or instance")
        parser.add_argument("--all", action="store_true", help="also those that were revoked")
        return parser

    def act(self, master: MasterClient, args: argparse.Namespace) -> int:
        """Print the certificates."""
        found = master.certificates(args.kind, args.name)
        shown = [each for each in found if args.all or not each["revoked_at"]]
        columns = ["serial", "kind", "name", "not_after"]
        return _print_table(shown, columns + ["revoked_at", "reason"] * args.all, args)


class CertificateRevokeCommand(AccessCommand):
    """let a certificate be good no more, at once."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the certificate."""
        parser = super().get_parser(prog_name)
        parser.add_argument("serial", help="its serial number, as `slapos certificate list` shows")
        parser.add_argument("--reason", default="", help="why; whoever uses it is told")
        parser.add_argument("--yes", action="store_true", help="do not ask")
        return parser

    def act(self, master: MasterClient, args: argparse.Namespace) -> int:
        """Revoke the certificate after asking, and print it."""
        question = f"Whoever has the certificate {args.serial} will be refused."
        if not args.yes and not confirm("revoke", question):
            print("Nothing was changed.")
            return 1
        revoked = master.revoke(args.serial, args.reason)
        return _print_table([revoked], ("serial", "kind", "name", "revoked_at", "reason"), args)


def duration(text: str) -> float:
    """Return a duration such as 90m or 2d in seconds.

    :raises ParameterError: when it is none.
    """
    match = re.fullmatch(r"([0-9]+)([smhd]?)", text)
    if match is None:
        raise ParameterError(
            f"{text!r} is no duration", "write a number and a unit, such as 90m, 12h or 2d"
        )
    return float(int(match[1]) * _UNITS[match[2]])


def _add_lifetime(parser: argparse.ArgumentParser) -> None:
    """Take how long a token is good for."""
    parser.add_argument(
        "--lifetime", type=duration, help="how long it is good for, such as 90m (default: 1h)"
    )


def _print_token(answer: Document, command: str, *, as_json: bool) -> int:
    """Print a token, and the command that uses it."""
    if as_json:
        print_json(answer)
        return 0
    print(f"{command} --token {answer['token']}")
    name = answer["name"] or "of any name"
    print(f"  good until {answer['expires_at']}, once, for {answer['kind']} {name}")
    return 0


def _print_table(rows: Sequence[Document], columns: Sequence[str], args: argparse.Namespace) -> int:
    """Print documents as a table or as JSON."""
    if args.json:
        print_json(rows)
        return 0
    table = Table(*(each.replace("_", " ") for each in columns), box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(_cell(column, row[column]) for column in columns))
    Console(highlight=False, width=_TABLE_WIDTH).print(table)
    return 0


def _cell(column: str, value: str | None) -> str:
    """Return a value as tables show it: times to the minute."""
    text = value or ""
    return text[:16].replace("T", " ") if column.endswith(("_at", "_after")) else text
