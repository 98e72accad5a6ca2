# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos cluster plan``: what a request would do, under a number by which it can be applied."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from slapos_wendelin.cli.asking import add_options, ask
from slapos_wendelin.cli.client_command import JsonCommand, print_json
from slapos_wendelin.cli.plan_text import console, print_cautions, print_plan
from slapos_wendelin.master.client import Document

NOTHING_TO_DO, REFUSED, CHANGES = 0, 1, 2


class PlanCommand(JsonCommand):
    """show what a request would do, and keep that as a plan.

    Exit status: 0 nothing to do, 2 changes, 1 an error or a node that is refused.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take what is asked for, as ``slapos request`` does."""
        parser = super().get_parser(prog_name)
        add_options(parser)
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Make a plan and print it."""
        with self.master(args) as master:
            asked = ask(master, args)
            document = master.make_plan(asked.document)
        if args.json:
            print_json({**document, "cautions": asked.cautions})
        else:
            print_numbered_plan(document, console(), asked.cautions)
        return plan_status(document)


def print_numbered_plan(document: Document, out: Console, cautions: Sequence[str] = ()) -> None:
    """Print a plan with its cautions, and how it is applied or why it is not kept."""
    print_plan(document, out)
    print_cautions(cautions, out)
    if document["plan"] is not None:
        out.print(f"Apply it with: slapos request --plan {document['plan']}")
    elif document["effects"]["refusals"]:
        out.print("The plan is not kept: change the request, or make room first.")


def plan_status(document: Document) -> int:
    """Return the exit status that tells what a plan says."""
    effects = document["effects"]
    if effects["refusals"]:
        return REFUSED
    return CHANGES if effects["changes"] or effects["later"] else NOTHING_TO_DO
