# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos cluster move`` and ``slapos computer drain``: instances go to other computers."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator

from slapos_wendelin.cli.client_command import JsonCommand, confirm, print_json
from slapos_wendelin.errors import CommandError, WendelinError
from slapos_wendelin.master.client import Document, MasterClient

#: Seconds that a tree gets to be well again after a move.
PATIENCE = 1800.0

#: Seconds between two looks.
_INTERVAL = 2.0


class MovingCommand(JsonCommand):
    """A command that moves instances."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take --yes and --wait."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--yes", action="store_true", help="do not ask")
        return parser


class MoveCommand(MovingCommand):
    """place an instance anew, on another computer; the data in its partition are not copied.

    What is a copy of what others have, as the data of a NEO storage node are, is made again there.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the instance and the target."""
        parser = super().get_parser(prog_name)
        parser.add_argument("reference", help="the name of a root, or the guid of an instance")
        parser.add_argument(
            "--to", metavar="COMPUTER", help="where to (default: the best other computer)"
        )
        parser.add_argument(
            "--wait",
            nargs="?",
            type=float,
            const=PATIENCE,
            metavar="SECONDS",
            help=f"wait until its tree is well again (default: {PATIENCE:g} seconds at most)",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Ask, move, and say where to."""
        with self.master(args) as master:
            instance = master.instance(args.reference)
            if not args.yes and not confirm("move", warning([instance])):
                print("Nothing was changed.", file=sys.stderr)
                return 1
            moved = master.move(args.reference, args.to)
            _show(args, _sentence(moved))
            if args.wait is not None:
                _wait_until_well(master, moved["to"], args.wait)
        if args.json:
            print_json(moved)
        return 0


class DrainCommand(MovingCommand):
    """let a computer take no new instances and move those that it has, one after the other.

    After each move it waits until the tree of the instance is well again, so that replicas are
    whole before the next one goes. It may be interrupted, and goes on when it is started again.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the computer and how long to wait."""
        parser = super().get_parser(prog_name)
        parser.add_argument("computer", help="the computer's reference")
        waiting = parser.add_mutually_exclusive_group()
        waiting.add_argument(
            "--wait",
            type=float,
            default=PATIENCE,
            metavar="SECONDS",
            help="how long a tree may take to be well again (default: %(default)g)",
        )
        waiting.add_argument(
            "--no-wait",
            dest="wait",
            action="store_const",
            const=None,
            help="move all at once: replicas on this computer are lost together",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Ask, move what can be moved, and say what stays; exit 1 when something does."""
        with self.master(args) as master:
            instances = staying(master.computer(args.computer))
            if instances and not args.yes and not confirm("drain", warning(instances)):
                print("Nothing was changed.", file=sys.stderr)
                return 1
            moved, refused = drain(master, args.computer, args.wait, lambda line: _show(args, line))
        if args.json:
            print_json({"computer": args.computer, "moved": moved, "refused": refused})
        else:
            print(_summary(args.computer, len(moved), len(refused)))
        return 1 if refused else 0


def drain(
    master: MasterClient, computer: str, wait: float | None, show: Callable[[str], None]
) -> tuple[list[Document], list[Document]]:
    """Let a computer take no new instances and move those that it has, one after the other.

    :param wait: how many seconds a tree may take to be well after a move; None not to wait.
    :param show: is called with each line of progress.
    :returns: the moves, and the instances that could not go, each with ``error`` and ``remedy``.
    """
    master.put_computer(computer, state="draining")
    moved: list[Document] = []
    refused: list[Document] = []
    for instance in staying(master.computer(computer)):
        try:
            result = master.move(instance["guid"])
        except WendelinError as error:
            refused.append({**instance, "error": error.message, "remedy": error.remedy})
            show(f"{named(instance)} stays: {error.message}")
            continue
        moved.append(result)
        show(_sentence(result))
        if wait is not None:
            _wait_until_well(master, result["to"], wait)
    return moved, refused


def staying(computer: Document) -> list[Document]:
    """Return the instances on a computer that are not about to go."""
    return [each for each in computer["instances"] if each["state"] != "destroyed"]


def warning(instances: list[Document]) -> str:
    """Say what a move means."""
    names = ", ".join(map(named, instances))
    return f"The data in the partitions of these instances will be wiped, not copied: {names}."


def named(instance: Document) -> str:
    """Return an instance with its place."""
    place = f"{instance['computer']}/{instance['partition']}"
    return f"{instance['reference']} ({instance['guid']}, on {place})"


def _sentence(moved: Document) -> str:
    """Say where an instance went."""
    to = moved["to"]
    return f"{named(moved['from'])} goes to {to['computer']}/{to['partition']}"


def _summary(computer: str, moved: int, refused: int) -> str:
    """Say how a drain ended."""
    if refused:
        return (
            f"{computer} takes no new instances; {moved} went, {refused} could not: make room or"
            f" change their SLA, then repeat `slapos computer drain {computer}`"
        )
    return f"{computer} takes no new instances and has none to move any more; {moved} went"


def _show(args: argparse.Namespace, line: str) -> None:
    """Print progress, beside the document where one is asked for."""
    print(line, file=sys.stderr if args.json else sys.stdout, flush=True)


def _wait_until_well(master: MasterClient, instance: Document, seconds: float) -> None:
    """Return when the tree of an instance is well.

    :raises CommandError: when it takes longer.
    """
    deadline = time.monotonic() + seconds
    while True:
        waiting = [each for each in _nodes(master.instance(instance["root"])) if _is_awaited(each)]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise CommandError(
                f"{named(instance)} was moved, but {seconds:g} s later {waiting[0]['reference']}"
                f" ({waiting[0]['guid']}) is not well",
                "see `slapos cluster status`, then repeat the command to go on",
            )
        time.sleep(_INTERVAL)


def _nodes(instance: Document) -> Iterator[Document]:
    """Yield an instance and all below it."""
    yield instance
    for child in instance["children"]:
        yield from _nodes(child)


def _is_awaited(instance: Document) -> bool:
    """Return whether an instance is to be well and is not; what is to go may go later."""
    return instance["state"] != "destroyed" and not instance["settled"]
