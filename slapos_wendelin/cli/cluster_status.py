# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos cluster status``."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from slapos_wendelin.cli.client_command import JsonCommand, print_json
from slapos_wendelin.cli.status import exit_status, print_status, render
from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master.client import Document

#: Seconds between two looks.
_INTERVAL = 2.0


class StatusCommand(JsonCommand):
    """show data centers, computers, instances and how they are; exit 0 when all is well, else 1."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the instance to show and how often to look."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "reference",
            nargs="?",
            help="show one tree only: the name of its root, or the guid of an instance",
        )
        parser.add_argument(
            "--watch",
            nargs="?",
            type=_seconds,
            const=_INTERVAL,
            metavar="SECONDS",
            help=f"look again every so often (default: {_INTERVAL:g}) until interrupted",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Print the status once, or again and again."""
        with self.master(args) as master:

            def ask() -> Document:
                return master.status(args.reference)

            if args.watch is not None:
                return _watch(ask, args.watch, as_json=args.json)
            document = ask()
            if args.json:
                print_json(document)
                return exit_status(document)
            return print_status(document, Console(highlight=False))


def _seconds(text: str) -> float:
    """Return a time in seconds; argparse tells when it is none."""
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return seconds


def _watch(ask: Callable[[], Document], interval: float, *, as_json: bool) -> int:
    """Show the status again and again until interrupted; return the last exit status."""
    status = 1
    try:
        if as_json:
            while True:
                document = ask()
                status = exit_status(document)
                print(json.dumps(document), flush=True)
                time.sleep(interval)
        console = Console(highlight=False)
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            while True:
                try:
                    document = ask()
                    status = exit_status(document)
                    live.update(render(document, console.width), refresh=True)
                except WendelinError as error:
                    # A master that restarts is no reason to stop looking.
                    status = error.exit_status
                    live.update(Text(str(error)), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        return status
