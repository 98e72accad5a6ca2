# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos cluster neo ...``: the NEO of a cluster, in the words of neoctl, from anywhere."""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from slapos_wendelin.cli import neo_tables
from slapos_wendelin.cli.client_command import JsonCommand, confirm, print_json
from slapos_wendelin.cli.history import moment
from slapos_wendelin.cli.neo_operations import (
    Nodes,
    finished,
    look,
    nodes_of,
    say_it_goes_on,
    wait,
)
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.master.client import Document, MasterClient

#: What a shell tells of a command that was interrupted.
_INTERRUPTED = 130

#: How wide tables may be where there is no terminal, in columns.
_WIDE = 160


class NeoCommand(JsonCommand):
    """A command about the NEO of one cluster."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the cluster."""
        parser = super().get_parser(prog_name)
        parser.add_argument("cluster", help="the name that it was requested under, or its guid")
        return parser


class LookCommand(NeoCommand):
    """A command that shows how NEO is."""

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Ask the keeper how NEO is, and show it."""
        with self.master(args) as master:
            state = look(master, args.cluster)
        self.show(state, Nodes(args.cluster, state["nodes"]), args)
        return 0

    def show(self, state: Document, nodes: Nodes, args: argparse.Namespace) -> None:
        """Print what the command is for."""
        raise NotImplementedError


class NodesCommand(LookCommand):
    """show the nodes of NEO: what they are called here and there, their states and places."""

    def show(self, state: Document, nodes: Nodes, args: argparse.Namespace) -> None:
        """Print the nodes."""
        if args.json:
            keys = ("cluster", "primary", "replicas")
            print_json({**{key: state[key] for key in keys}, "nodes": nodes.nodes})
            return
        out = _console()
        out.print(f"{args.cluster} is {state['cluster']}")
        out.print(neo_tables.show_nodes(state, nodes))


class PartitionTableCommand(LookCommand):
    """show the partition table: which storages, where, have each NEO partition."""

    def show(self, state: Document, nodes: Nodes, args: argparse.Namespace) -> None:
        """Print the partition table."""
        document = neo_tables.partition_table(state, nodes)
        if args.json:
            print_json(document)
            return
        out = _console()
        out.print(
            f"{args.cluster} is {state['cluster']}: {state['partitions']} NEO partitions,"
            f" replicas: {state['replicas']}"
        )
        out.print(neo_tables.show_partition_table(document))


class CellsCommand(LookCommand):
    """show the cells of storages: how many each has, and how many are being copied."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the storages."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "storages", nargs="*", metavar="storage", help="show each of its cells (default: all)"
        )
        return parser

    def show(self, state: Document, nodes: Nodes, args: argparse.Namespace) -> None:
        """Print the cells."""
        found = neo_tables.cells(state, nodes, nodes.resolve(args.storages))
        if args.json:
            print_json(found)
            return
        out = _console()
        out.print(neo_tables.show_cells(found))
        for each in found if args.storages else ():
            out.print(each["name"] or each["id"])
            out.print(neo_tables.show_partitions_of(each))


class OperationCommand(NeoCommand):
    """A command that has the keeper change NEO, and waits for it."""

    kind = ""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take how long to wait."""
        parser = super().get_parser(prog_name)
        _add_waiting(parser)
        return parser

    def operate(
        self, master: MasterClient, args: argparse.Namespace, nodes: Nodes, **arguments: Any
    ) -> int:
        """Ask for the operation, wait, and show what came of it."""
        operation = master.operate(args.cluster, self.kind, arguments)
        if operation["taken_at"] is not None:
            print(f"This is operation {operation['operation']}, which goes on.", file=sys.stderr)
        return _follow(self, master, args, operation, nodes)

    def show(self, operation: Document, nodes: Nodes, args: argparse.Namespace) -> None:
        """Print what came of it, for people."""
        _show_result(operation, nodes, args.cluster)


class SpreadCommand(OperationCommand):
    """A command that spreads cells over storages."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the storages that do not count."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--without",
            action="append",
            default=[],
            metavar="STORAGE",
            help="a storage that is down: do not wait for it, let others copy what it has",
        )
        return parser


class TweakCommand(SpreadCommand):
    """spread the cells over the storages, once; NEO then copies what has to move.

    The keeper of a cluster does so by itself when storages are added, moved or replaced. `balance`
    waits for the copies.
    """

    kind = "tweak"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take whether to change anything."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--dry-run", action="store_true", help="only show what would change (viewers may too)"
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Tweak, or show what that would change."""
        with self.master(args) as master:
            nodes = nodes_of(master, args.cluster)
            without = nodes.resolve(args.without)
            if not args.dry_run:
                return self.operate(master, args, nodes, without=without)
            asked = master.look_at(args.cluster, self.kind, {"without": without})
            return _follow(self, master, args, asked, nodes)


class BalanceCommand(SpreadCommand):
    """tweak until nothing is left to change, and wait until all cells are copied."""

    kind = "balance"

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Balance."""
        with self.master(args) as master:
            nodes = nodes_of(master, args.cluster)
            return self.operate(master, args, nodes, without=nodes.resolve(args.without))


class PackCommand(OperationCommand):
    """forget what objects were before a time, so that the storages have room.

    What is lost is history: undo of earlier transactions, and reading the database as it was then.
    Objects stay as they are, also those that nothing refers to. Each storage serves nobody while
    it packs: do it when little is written.
    """

    kind = "pack"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the time."""
        parser = super().get_parser(prog_name)
        when = parser.add_mutually_exclusive_group(required=True)
        when.add_argument(
            "--before",
            metavar="WHEN",
            help="a time such as 2026-01-31T12:00 or an age such as 30d: keep what is newer",
        )
        when.add_argument("--all", action="store_true", help="keep only what is current now")
        parser.add_argument("--yes", action="store_true", help="do not ask")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Ask, then pack."""
        now = time.time()
        # What now is, the master says: the clock of this machine may be wrong.
        before = None if args.all else moment(args.before, now, "--before")
        if before is not None and before > now:
            raise ParameterError(
                f"--before {args.before} is in the future", "give a time that is over, or --all"
            )
        with self.master(args) as master:
            nodes = nodes_of(master, args.cluster)
            when = "now" if before is None else _time(before)
            what = (
                f"What objects in {args.cluster} were before {when} will be forgotten for ever: no"
                " undo of earlier transactions, no reading of earlier states. Each storage serves"
                " nobody while it packs."
            )
            if not args.yes and not confirm(self.kind, what):
                print("Nothing was changed.", file=sys.stderr)
                return 1
            return self.operate(master, args, nodes, before=before)


class OperationsCommand(NeoCommand):
    """show what was asked of the NEO of a cluster lately, by whom, and how it ended."""

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Print the operations."""
        with self.master(args) as master:
            found = master.operations(args.cluster)
        if args.json:
            print_json(found)
            return 0
        if not found:
            print(f"Nothing was asked of {args.cluster} yet.")
            return 0
        _console().print(neo_tables.show_operations(found))
        return 0


class FollowCommand(OperationCommand):
    """wait for an operation that was asked for before, and show what came of it."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the operation."""
        parser = super().get_parser(prog_name)
        parser.add_argument("number", type=int, help="as `slapos cluster neo operations` shows it")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Wait and print."""
        with self.master(args) as master:
            operation = master.operation(args.cluster, args.number)
            if operation["look"]:
                raise ParameterError(
                    f"operation {args.number} of {args.cluster} was a look",
                    f"see `slapos cluster neo operations {args.cluster}` for the others",
                )
            nodes = Nodes(args.cluster, [])
            if operation["state"] in {"waiting", "running"} or operation["result"]:
                nodes = nodes_of(master, args.cluster)
            return _follow(self, master, args, operation, nodes)


class CancelCommand(NeoCommand):
    """end an operation before its time; what NEO has begun, such as copies, goes on."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the operation."""
        parser = super().get_parser(prog_name)
        parser.add_argument("number", type=int, help="as `slapos cluster neo operations` shows it")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """End it."""
        with self.master(args) as master:
            operation = master.cancel_operation(args.cluster, args.number)
        if args.json:
            print_json(operation)
        else:
            print(f"{operation['kind']} of {args.cluster} is ended.")
        return 0


def _add_waiting(parser: argparse.ArgumentParser) -> None:
    """Take how long to wait."""
    waiting = parser.add_mutually_exclusive_group()
    waiting.add_argument(
        "--wait",
        type=float,
        metavar="SECONDS",
        help="how long to wait (default: until it is over); it goes on afterwards, exit 2",
    )
    waiting.add_argument(
        "--no-wait",
        dest="wait",
        action="store_const",
        const=0.0,
        help="only ask for it, and show its number",
    )


def _follow(
    command: OperationCommand,
    master: MasterClient,
    args: argparse.Namespace,
    operation: Document,
    nodes: Nodes,
) -> int:
    """Wait for an operation and show what came of it."""
    is_open = operation["state"] in {"waiting", "running"}
    if args.wait == 0.0 and is_open and not operation["look"]:
        if args.json:
            print_json(operation)
        else:
            say_it_goes_on(args.cluster, operation)
        return 0
    try:
        operation = wait(master, args.cluster, operation, args.wait or None, nodes.in_words)
    except KeyboardInterrupt:
        say_it_goes_on(args.cluster, operation)
        return _INTERRUPTED
    if args.json and operation["state"] == "done":
        print_json(operation)
        return 0
    command.show(finished(operation, nodes.in_words), nodes, args)
    return 0


def _show_result(operation: Document, nodes: Nodes, cluster: str) -> None:
    """Print what came of an operation."""
    result, out = operation["result"], _console()
    if operation["kind"] == "balance":
        out.print(
            f"{cluster} is balanced: nothing is left to tweak, {_count(result['copied'], 'cell')}"
            f" copied after {_count(result['tweaks'], 'tweak')}, replicas: {result['replicas']}."
        )
    elif operation["kind"] == "pack":
        out.print(
            f"{_count(result['storages'], 'storage')} of {cluster} have forgotten what was before"
            f" {_time(result['before'])}, in {result['seconds']} s."
        )
    elif not result["changed"]:
        out.print(f"No change: the cells of {cluster} are spread as they should be.")
    else:
        out.print(neo_tables.show_tweak(result, nodes))
        copies = _count(neo_tables.copies_to_make(result), "cell")
        if operation["look"]:
            out.print(f"{copies} would have to be copied. Nothing was changed.")
        else:
            out.print(f"{copies} to copy; `slapos cluster neo balance {cluster}` waits for that.")


def _count(number: int, what: str) -> str:
    """Return a number of things."""
    return f"{number} {what}{'s' * (number != 1)}"


def _time(seconds: float) -> str:
    """Return a time as people read it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _console() -> Console:
    """Return a console on standard output; programs that read lines get them whole."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDE
    return console
