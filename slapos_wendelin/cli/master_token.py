# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos master token``: the way in for the first operator, and for one who has lost the key.

It works on the master's own machine only, for who may read its database and its authority.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from slapos.cli.command import Command

from slapos_wendelin.cli.access import duration
from slapos_wendelin.cli.client_command import print_json
from slapos_wendelin.master.admission import LIFETIME, Invitation, make_token
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.options import add_database_option


class MasterTokenCommand(Command):
    """make a token for a user, on the machine of the master."""

    command_group = "master"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the user, and where the master keeps what."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("user", help="the user's name")
        parser.add_argument(
            "--role",
            choices=("operator", "viewer"),
            default="operator",
            help="of the user (default: operator)",
        )
        add_database_option(parser)
        parser.add_argument(
            "--authority", required=True, type=Path, help="the folder of the master's authority"
        )
        parser.add_argument(
            "--lifetime", type=duration, default=LIFETIME, help="such as 90m (default: 1h)"
        )
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Make the token and print it."""
        args = parsed_args
        # It tells at each start which kind of database it meets.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        invitation = Invitation("user", args.user, args.role, lifetime=args.lifetime)
        token = first_token(args.database, args.authority, invitation)
        if args.json:
            print_json({"token": token})
        else:
            print(token)
        return 0


def first_token(database: Path | str, authority: Path, invitation: Invitation) -> str:
    """Return a token that is made without asking a master that runs."""
    opened = Database(database)
    try:
        with opened.writing() as session:
            token, _ = make_token(session, Authority(authority), invitation, "master")
    finally:
        opened.close()
    return token
