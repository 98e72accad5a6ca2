# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos cluster rollback``: bring an instance back to what was requested of it earlier."""

from __future__ import annotations

import argparse
import json
import sys

from slapos.util import SoftwareReleaseSerialisation

from slapos_wendelin.cli.asking import Asked, checked, current_instance
from slapos_wendelin.cli.client_command import JsonCommand, print_json
from slapos_wendelin.cli.plan_text import console, print_plan
from slapos_wendelin.cli.planning import CHANGES, plan_status, print_numbered_plan
from slapos_wendelin.cli.release import Release
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.master.client import Document, MasterClient


class RollbackCommand(JsonCommand):
    """bring an instance back to what was requested of it just after a change.

    Release, software type, parameters, SLA and state of the root are requested again, as a new
    change; it stays where it is. Exit status: 0 done or nothing to do, 1 an error or not confirmed;
    with --plan: 0 nothing to do, 2 changes, 1 an error.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the instance and the change."""
        parser = super().get_parser(prog_name)
        parser.add_argument("reference", help="name of the instance, also one that is gone")
        parser.add_argument(
            "change", type=_change, metavar="N", help="a number of `slapos cluster history`"
        )
        parser.add_argument("--plan", action="store_true", help="only show it and keep the plan")
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument(
            "--unchecked", action="store_true", help="do not read the release of that time"
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Show what the rollback does, ask, and do exactly that."""
        with self.master(args) as master:
            past = master.request_of_the_past(args.reference, args.change)
            current = current_instance(master, args.reference)
            document = master.make_plan(_asked(master, past, current, args).document)
            if args.json:
                print_json(document)
            elif args.plan:
                _warn_of_lost_data(past, current)
                print_numbered_plan(document, console())
            else:
                _warn_of_lost_data(past, current)
                print_plan(document, console())
            if args.plan or plan_status(document) != CHANGES:
                return plan_status(document)
            return _apply(master, document, args)


def _asked(
    master: MasterClient, past: Document, current: Document | None, args: argparse.Namespace
) -> Asked:
    """Return the request of that time as one of today, checked against its release."""
    texts = past["parameters"]
    is_json = list(texts) == ["_"]
    wanted = Asked(
        reference=past["reference"],
        release_url=past["release_url"],
        software_type=past["software_type"],
        state=past["state"],
        parameters=_decoded(texts["_"]) if is_json else texts,
        sla=past["sla"],
        shared=past["shared"],
        serialisation=SoftwareReleaseSerialisation("json-in-xml" if is_json else "xml"),
        current=current,
        exact_texts=texts,
    )
    if args.unchecked or past["state"] == "destroyed":
        return wanted
    release = Release(past["release_url"], past["software_type"])
    release.check()
    return checked(master, wanted, release)


def _decoded(text: str) -> Document:
    """Return the parameters that a text holds.

    :raises ParameterError: when it holds none; a request without checks brings it back as it was.
    """
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ParameterError(
            f"the parameters of that time cannot be read: {text[:80]!r}",
            "request the instance with parameters of today",
        )
    return values


def _warn_of_lost_data(past: Document, current: Document | None) -> None:
    """Say that an instance which was destroyed comes back empty."""
    if not past["live"] and past["state"] != "destroyed":
        now = "" if current is None else f"; the {past['reference']} of today is another one"
        console().print(
            f"The {past['reference']} of that time ({past['guid']}) was destroyed: its data is gone"
            f"{now}. What was requested of it can be requested anew.",
            style="yellow",
        )


def _apply(master: MasterClient, document: Document, args: argparse.Namespace) -> int:
    """Ask, and apply the plan that was shown."""
    if not args.yes and not _is_confirmed(document):
        print("Nothing was changed.", file=sys.stderr)
        return 1
    master.apply_plan(document["plan"])
    if not args.json:
        console().print(
            f"{args.reference} is requested as it was after change {args.change}.\n"
            f"slapos request {args.reference} --wait follows its nodes."
        )
    return 0


def _is_confirmed(document: Document) -> bool:
    """Ask whether to do what was shown."""
    if not sys.stdin.isatty():
        raise ParameterError(
            "a rollback asks before it changes anything, and there is no terminal to ask on",
            f"add --yes, or apply it with `slapos request --plan {document['plan']}`",
        )
    return input("Do this? Type yes to go on: ").strip() == "yes"


def _change(text: str) -> int:
    """Return the number of a change, with or without the # of history."""
    return int(text.removeprefix("#"))
