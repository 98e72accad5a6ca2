# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos cluster history``: who changed what, when, from what to what."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby

from rich.console import Console

from slapos_wendelin.cli.client_command import JsonCommand, print_json
from slapos_wendelin.cli.plan_text import action_of, console, title, value_differences
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.master.client import Document

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class HistoryCommand(JsonCommand):
    """show who changed what, when, from what to what, the newest last.

    A number such as #17 stands for the whole transaction: `slapos cluster rollback` takes it.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take what to show and since when."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "reference", nargs="?", help="an instance with all below it, also one that is gone"
        )
        for option, metavar, text in (
            ("--computer", "NAME", "a computer, its partitions and its software"),
            ("--software", "URL", "a release on all computers"),
            ("--product", "NAME", "a product of the catalog"),
        ):
            parser.add_argument(option, metavar=metavar, help=text)
        parser.add_argument("--all", action="store_true", help="everything")
        parser.add_argument(
            "--since", metavar="WHEN", help="a time such as 2026-01-31T12:00 or an age such as 2h"
        )
        parser.add_argument("--limit", type=int, default=100, help="how many changes (default 100)")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Print the changes."""
        selected = (args.reference, args.computer, args.software, args.product, args.all)
        if len([each for each in selected if each]) != 1:
            raise ParameterError(
                "it is not clear whose history is asked for",
                "give the name of an instance, --computer, --software, --product or --all",
            )
        if args.limit < 1:
            raise ParameterError(f"--limit is {args.limit}", "give 1 or more")
        with self.master(args) as master:
            document = master.history(
                limit=args.limit,
                since=moment(args.since, time.time()) if args.since else 0.0,
                instance=args.reference or "",
                computer=args.computer or "",
                software=args.software or "",
                product=args.product or "",
            )
        if args.json:
            print_json(document)
            return 0
        out = console()
        if document["more"]:
            out.print(f"(the newest {args.limit} changes; --limit shows more)")
        for line in transactions(document["changes"]):
            out.print(line)
        if not document["changes"]:
            out.print("No changes.")
        return 0


def moment(text: str, now: float, option: str = "--since") -> float:
    """Return a time in seconds since the epoch, from ISO 8601 or an age such as ``2h``.

    :param option: the option of the command that has it, which the error names.
    :raises ParameterError: when it is neither.
    """
    age = re.fullmatch(r"([0-9]+)([smhdw])", text)
    if age:
        return max(now - int(age[1]) * _SECONDS[age[2]], 0.0)
    try:
        return max(datetime.fromisoformat(text).timestamp(), 0.0)
    except (ValueError, OverflowError) as error:
        raise ParameterError(
            f"{option} {text!r} is no time",
            "write 2026-01-31, 2026-01-31T12:00 or an age such as 2h",
        ) from error


def transactions(changes: list[Document]) -> Iterator[str]:
    """Yield the lines that tell changes, those of one transaction together."""
    for _, group in groupby(changes, key=lambda change: change["number"]):
        members = list(group)
        last = members[-1]
        when = datetime.fromisoformat(last["at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        yield f"#{last['id']}  {when}  {last['who']}"
        for change in members:
            told = value_differences(change)
            if told or action_of(change) != "changed":
                yield f"  {title(change)} {action_of(change)}"
            for difference in told:
                yield f"      {difference}"


def print_transactions(changes: list[Document], out: Console) -> None:
    """Print changes as history tells them."""
    for line in transactions(changes):
        out.print(line)
