# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos master``: start it, back it up, put a backup back, check its database."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from slapos.cli.command import Command

from slapos_wendelin.errors import ParameterError
from slapos_wendelin.master import __main__ as master
from slapos_wendelin.master import consistency, options, restoring, units
from slapos_wendelin.master.backup import BackupFile, Summary, write_backup
from slapos_wendelin.master.database import Database


class StartCommand(Command):
    """run the slap master in the foreground."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the options of a master."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        options.add_options(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Run until SIGTERM or SIGINT."""
        return master.run(parsed_args)


class UnitCommand(Command):
    """print what lets systemd or supervisord run a master with the options that are given."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the kind of unit and the options of a master."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("kind", choices=(units.SYSTEMD, units.SUPERVISORD))
        parser.add_argument("--user", default=getpass.getuser(), help="who runs it (default: you)")
        options.add_options(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Print the unit."""
        if "://" in parsed_args.database and urlsplit(parsed_args.database).password:
            raise ParameterError(
                "the database's URL holds a password, and everybody may read a unit",
                "put the password into a file, as docs/master.md says under Database",
            )
        print(units.unit(parsed_args.kind, _start_command(parsed_args), parsed_args.user), end="")
        return 0


class BackupCommand(Command):
    """write everything in the master's database to a file, while masters go on."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the file and the database."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("file", type=Path)
        options.add_database_option(parser)
        _add_authority_option(parser, "put the certificate authority into it, its key included")
        _add_json_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Write the backup and say what is in it."""
        database = Database(parsed_args.database, create=False)
        try:
            summary = write_backup(database, parsed_args.file, parsed_args.authority)
        finally:
            database.close()
        _show(summary, f"{parsed_args.file} holds", as_json=parsed_args.json)
        return 0


class RestoreCommand(Command):
    """put a backup back, or move it to another kind of database; no master may run on it."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the file and the database."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("file", type=Path)
        options.add_database_option(parser)
        _add_authority_option(parser, "put the certificate authority back into this folder")
        parser.add_argument(
            "--replace", action="store_true", help="lose what is in the database (asks first)"
        )
        parser.add_argument("--yes", action="store_true", help="do not ask")
        _add_json_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Check the backup, put it back and check the database."""
        backup = BackupFile(parsed_args.file)
        if parsed_args.authority is not None:
            restoring.check_authority(backup, parsed_args.authority, replace=parsed_args.replace)
        if parsed_args.replace and not parsed_args.yes and not _confirmed(backup):
            print("Nothing was changed.", file=sys.stderr)
            return 1
        restoring.restore(backup, parsed_args.database, replace=parsed_args.replace)
        if parsed_args.authority is not None:
            restoring.restore_authority(backup, parsed_args.authority, replace=parsed_args.replace)
        findings = _check(parsed_args.database)
        _show(backup.summary, "The database holds again", as_json=parsed_args.json)
        for finding in findings:
            print(f"warning: {finding.message}\n  remedy: {finding.remedy}", file=sys.stderr)
        return 0


class CheckCommand(Command):
    """say whether what stands in the master's database is consistent; masters may go on."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the database."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        options.add_database_option(parser)
        _add_json_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Print what is wrong; 1 when anything is."""
        findings = _check(parsed_args.database)
        if parsed_args.json:
            document = [
                {"rule": each.rule, "message": each.message, "remedy": each.remedy}
                for each in findings
            ]
            print(json.dumps({"consistent": not findings, "findings": document}, indent=2))
        elif findings:
            for finding in findings:
                print(f"{finding.rule}: {finding.message}\n  remedy: {finding.remedy}")
        else:
            print("The database is consistent.")
        return 1 if findings else 0


def _check(location: str) -> list[consistency.Finding]:
    """Return what is wrong in a database."""
    database = Database(location, create=False)
    try:
        with database.reading() as session:
            return consistency.check(session)
    finally:
        database.close()


def _confirmed(backup: BackupFile) -> bool:
    """Ask whether to lose what is in the database."""
    if not sys.stdin.isatty():
        raise ParameterError("nobody is there to ask", "add --yes to --replace")
    print(
        f"This loses all that the database holds, for the backup of {backup.summary.created_at}."
        " Go on? [y/N] ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _start_command(args: argparse.Namespace) -> list[str]:
    """Return the command that starts a master with the given options."""
    program = [sys.executable, "-P", "-m", "slapos_wendelin.cli.entry"]
    return [*program, "master", "start", *options.words_of(args)]


def _add_authority_option(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the option that names the folder of the certificate authority."""
    parser.add_argument("--authority", type=Path, metavar="FOLDER", help=text)


def _add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for programs."""
    parser.add_argument("--json", action="store_true", help="print for programs")


def _show(summary: Summary, title: str, *, as_json: bool) -> None:
    """Print what a backup holds."""
    if as_json:
        print(json.dumps(summary.document(), indent=2))
        return
    print(f"{title} the state of {summary.created_at}, schema version {summary.schema}.")
    table = Table("table", "rows")
    for name, count in summary.rows.items():
        table.add_row(name, str(count))
    Console().print(table)
    if summary.authority:
        print(f"certificate authority: {', '.join(summary.authority)}; keep the file secret")
    print(f"SHA-256 {summary.sha256}")
