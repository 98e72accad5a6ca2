# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos request``: by product or URL, checked before it is sent, followed until it is ready."""

from __future__ import annotations

import argparse
import sys

from slapos_wendelin.cli.asking import Asked, add_options, ask, current_instance
from slapos_wendelin.cli.client_command import JsonCommand, print_json
from slapos_wendelin.cli.outcome import INTERRUPTED
from slapos_wendelin.cli.plan_text import console, print_cautions, print_plan
from slapos_wendelin.cli.planning import plan_status
from slapos_wendelin.cli.showing import wait
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.master.client import Document, MasterClient
from slapos_wendelin.waiting import Patience

#: The options that a plan has an answer for already, by their names in the parsed arguments.
_IN_PLAN = {
    "software_url": "the software",
    "node": "--node",
    "type": "--type",
    "state": "--state",
    "slave": "--slave",
    "force_serialisation": "--force-serialisation",
    "parameters": "--parameters",
    "parameters_file": "--parameters-file",
    "unchecked": "--unchecked",
    "dry_run": "--dry-run",
}


class RequestCommand(JsonCommand):
    """request an instance, or change it, and show what it publishes.

    Exit status: 0 when the request is accepted, 1 for an error. With --wait: 0 when all nodes are
    well, 1 when one fails, 2 when it takes too long. With --dry-run: 0 nothing to do, 2 changes.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take what is asked for, a plan instead of it, and whether to wait."""
        parser = super().get_parser(prog_name)
        add_options(parser)
        parser.add_argument(
            "--plan", type=int, metavar="N", help="apply a plan of `slapos cluster plan`"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="only show what the request would do"
        )
        parser.add_argument(
            "--wait",
            nargs="?",
            type=float,
            const=float("inf"),
            metavar="SECONDS",
            help="follow until all nodes are well"
            " (default: as long as something changes in ten minutes)",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Request, print what the instance publishes, and wait for its nodes."""
        with self.master(args) as master:
            if args.plan is not None:
                reference = _planned_reference(master, args)
                current = current_instance(master, reference)
                _apply(master, reference, args)
            else:
                asked = ask(master, args)
                if args.dry_run:
                    return _show_dry_run(master, asked, args)
                reference, current = asked.reference, asked.current
                _send(master, asked, args)
            if args.wait is None:
                return 0
            # One that is to go has left its name already.
            current = current_instance(master, reference) or current
            return 0 if current is None else _finish(master, current["guid"], reference, args)


def _show_dry_run(master: MasterClient, asked: Asked, args: argparse.Namespace) -> int:
    """Show what a request would do."""
    document = master.make_plan(asked.document, keep=False)
    if args.json:
        print_json({**document, "cautions": asked.cautions})
    else:
        print_plan(document, console())
        print_cautions(asked.cautions, console())
    return plan_status(document)


def _send(master: MasterClient, asked: Asked, args: argparse.Namespace) -> None:
    """Send a request, and print the instance."""
    if not args.json:
        for difference in asked.changes():
            console().print(f"  {difference}")
        print_cautions(asked.cautions, console())
    instance = master.request(asked.request)
    if args.json:
        _print_json(instance, args)
        return
    state = "destroyed" if instance is None else instance["state"]
    console().print(f"{asked.reference} is requested, its state is {state}.")
    _print_published(instance)


def _planned_reference(master: MasterClient, args: argparse.Namespace) -> str:
    """Return the name of the instance that a plan is for.

    :raises ParameterError: when something else is asked for beside the plan.
    """
    given = [text for key, text in _IN_PLAN.items() if getattr(args, key)]
    reference = str(master.plan(args.plan)["request"]["reference"])
    if args.reference and args.reference != reference:
        given.append(f"the instance {args.reference!r}")
    if given:
        raise ParameterError(
            f"plan {args.plan} says all that is requested of {reference!r},"
            f" and {', '.join(given)} is given too",
            "give --plan alone, or make another plan",
        )
    return reference


def _apply(master: MasterClient, reference: str, args: argparse.Namespace) -> None:
    """Apply a plan, and print its instance."""
    instance = master.apply_plan(args.plan)
    if args.json:
        _print_json(instance, args)
        return
    console().print(f"Plan {args.plan} is applied: {reference} is requested.")
    _print_published(instance)


def _finish(master: MasterClient, guid: str, reference: str, args: argparse.Namespace) -> int:
    """Wait until the nodes are well, then print what the root publishes."""
    seconds = None if args.wait == float("inf") else args.wait
    try:
        # Lines on standard error leave the output to programs.
        out = console(stderr=bool(args.json))
        root = wait(master, guid, Patience(seconds=seconds), out)
    except KeyboardInterrupt:
        print(
            f"\nInterrupted. The request for {reference} stays, its nodes go on;"
            f"\n  slapos request {reference} --wait follows them again.",
            file=sys.stderr,
        )
        return INTERRUPTED
    if args.json:
        print_json(root)
        return 0
    _print_published(root)
    console().print(f"{reference} is {'gone' if root['state'] == 'destroyed' else 'ready'}.")
    return 0


def _print_json(instance: Document | None, args: argparse.Namespace) -> None:
    """Print an instance for programs, unless it is printed once it is ready."""
    if args.wait is None:
        print_json(instance)


def _print_published(instance: Document | None) -> None:
    """Print what an instance publishes."""
    for key, value in (instance or {"connection": {}})["connection"].items():
        console().print(f"  {key:<16} {value}")
