# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos computer show | set | cordon | uncordon | remove``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slapos_wendelin.build_progress import described
from slapos_wendelin.cli.ages import gibibytes, times
from slapos_wendelin.cli.client_command import JsonCommand, confirm, print_json
from slapos_wendelin.cli.labels import add_label_option, labels_of
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.master.client import Document, MasterClient

#: What is shown of a computer as it is told, with how people call it.
_SHOWN = (
    ("state", "state"),
    ("datacenter", "data center"),
    ("region", "region"),
    ("provider", "provider"),
    ("network", "network"),
    ("address", "address"),
    ("contacted_at", "last contact"),
    ("measured_at", "measured"),
)


class ComputerCommand(JsonCommand):
    """A command about one computer."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the computer."""
        parser = super().get_parser(prog_name)
        parser.add_argument("computer", help="the computer's reference")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Do what the command is for, and print the computer as it is then."""
        with self.master(args) as master:
            document = self.act(master, args)
        if args.json:
            print_json(document)
        else:
            _print_computer(document, Console(highlight=False))
        return 0

    def act(self, master: MasterClient, args: argparse.Namespace) -> Document:
        """Return the computer, after what is to be done to it."""
        raise NotImplementedError


class ShowCommand(ComputerCommand):
    """show a computer: where it is, what it has, what is on it."""

    def act(self, master: MasterClient, args: argparse.Namespace) -> Document:
        """Return the computer."""
        return master.computer(args.computer)


class SetCommand(ComputerCommand):
    """change what is known of a computer; what is not named stays as it is."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the new values."""
        parser = super().get_parser(prog_name)
        for name, what in (
            ("datacenter", "data center"),
            ("region", "region"),
            ("provider", "provider"),
            ("network", "network"),
            ("address", "address that its formatting names"),
        ):
            parser.add_argument(f"--{name}", metavar="NAME", help=f"its {what}; '' for none")
        parser.add_argument(
            "--coordinates",
            nargs=2,
            type=float,
            metavar=("LATITUDE", "LONGITUDE"),
            help="where it is, in degrees",
        )
        add_label_option(parser)
        parser.add_argument(
            "--remove-label",
            action="append",
            default=[],
            metavar="NAME",
            help="a label to take away (may be repeated)",
        )
        return parser

    def act(self, master: MasterClient, args: argparse.Namespace) -> Document:
        """Change the computer, which must exist, and return it."""
        values = _values(args)
        if not values:
            raise ParameterError(
                f"nothing to change of {args.computer} was named",
                "see `slapos computer set --help`",
            )
        master.computer(args.computer)
        master.put_computer(args.computer, **values)
        return master.computer(args.computer)


class CordonCommand(ComputerCommand):
    """let a computer take no new instances; those that it has stay."""

    def act(self, master: MasterClient, args: argparse.Namespace) -> Document:
        """Cordon the computer and return it."""
        return _set_state(master, args.computer, "cordoned")


class UncordonCommand(ComputerCommand):
    """let a computer take new instances, also one that was draining or removed."""

    def act(self, master: MasterClient, args: argparse.Namespace) -> Document:
        """Open the computer and return it."""
        return _set_state(master, args.computer, "eligible")


class RemoveCommand(ComputerCommand):
    """take a computer out of the cloud; its history stays, its certificates end."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take --yes."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--yes", action="store_true", help="do not ask")
        return parser

    def act(self, master: MasterClient, args: argparse.Namespace) -> Document:
        """Remove the computer and return it."""
        shown = master.computer(args.computer)
        question = f"Computer {args.computer} will have to join the cloud anew to come back."
        if shown["instances"] or args.yes or confirm("remove", question):
            # The master refuses while instances are on it, and says which.
            master.remove_computer(args.computer)
        else:
            print("Nothing was changed.", file=sys.stderr)
        return master.computer(args.computer)


def _set_state(master: MasterClient, computer: str, state: str) -> Document:
    """Give a computer, which must exist, a state and return it."""
    master.computer(computer)
    master.put_computer(computer, state=state)
    return master.computer(computer)


def _values(args: argparse.Namespace) -> dict[str, Any]:
    """Return the values that the options name."""
    names = ("datacenter", "region", "provider", "network", "address")
    values: dict[str, Any] = {
        name: getattr(args, name) for name in names if getattr(args, name) is not None
    }
    if args.coordinates is not None:
        latitude, longitude = args.coordinates
        values["coordinates"] = {"latitude": latitude, "longitude": longitude}
    changes: dict[str, str | None] = dict.fromkeys(args.remove_label)
    changes |= labels_of(args.label)
    if changes:
        values["label_changes"] = changes
    return values


def _print_computer(computer: Document, console: Console) -> None:
    """Print a computer for people."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row(Text("computer"), Text(computer["reference"], style="bold"))
    for key, name in _SHOWN:
        if computer[key]:
            lost = " (lost)" if key == "state" and computer["lost"] else ""
            table.add_row(name, Text(f"{computer[key]}{lost}"))
    if computer["coordinates"]:
        table.add_row("coordinates", "{latitude}, {longitude}".format(**computer["coordinates"]))
    for name, value in sorted(computer["labels"].items()):
        table.add_row("label", Text(f"{name}={value}"))
    used, offered = computer["partitions_used"], computer["partitions"]
    table.add_row("partitions", f"{used} of {offered} in use")
    for name, size in _sizes(computer["measured"]):
        table.add_row(name, size)
    for release in computer["software"]:
        state = release["reported_state"] or "waiting"
        text = described(state, release["progress"])
        table.add_row("software", Text(f"{release['url']} {text}"))
    for died in _deaths(computer):
        table.add_row("died", Text(died, style="yellow"))
    console.print(table)
    if computer["instances"]:
        console.print(_instances(computer["instances"]))


def _sizes(measured: Document) -> Iterator[tuple[str, str]]:
    """Yield the sizes of a computer that was measured, with how people call them."""
    for key, name in (("memory_size", "memory"), ("storage_capacity", "disk")):
        if key in measured:
            yield name, gibibytes(measured[key])
    if "cpu_core" in measured:
        yield "cores", str(measured["cpu_core"])


def _deaths(computer: Document) -> Iterator[str]:
    """Yield a line for each program of a computer that has died."""
    names = {each["partition"]: each["reference"] for each in computer["instances"]}
    for each in computer["deaths"]:
        whose = names.get(each["partition"], each["partition"])
        yield f"{each['program']} of {whose} {times(each['count'])}, last {each['last_at']}"


def _instances(instances: list[Document]) -> Table:
    """Return a table of instances on a computer."""
    table = Table("partition", "instance", "guid", "state", box=SIMPLE_HEAD, pad_edge=False)
    for each in instances:
        state = each["state"] if each["settled"] else f"to be {each['state']}"
        table.add_row(*(Text(each[key]) for key in ("partition", "reference", "guid")), Text(state))
    return table
