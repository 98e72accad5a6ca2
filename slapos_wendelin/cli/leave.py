# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos computer leave``: a computer becomes a host again, as if it had never joined."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from rich.console import Console

from slapos_wendelin.cli.client_command import confirm, print_json
from slapos_wendelin.cli.host_progress import HostProgress
from slapos_wendelin.cli.join import access_of, add_ssh_options
from slapos_wendelin.cli.moving import PATIENCE, MovingCommand, drain, named, staying
from slapos_wendelin.errors import CommandError
from slapos_wendelin.master.client import Document, MasterClient, NotFoundError
from slapos_wendelin.remote.leaving import STEPS, look_at, target_of, uninstall
from slapos_wendelin.remote.probe import Facts
from slapos_wendelin.remote.target import Target, parse_address, parse_jumps

#: Seconds between two looks at what is still on the computer.
_INTERVAL = 1.0

Show = Callable[[str], None]


class LeaveCommand(MovingCommand):
    """empty a computer, take all away from its host that joining has brought, and remove it.

    Its instances go to other computers one after the other, as with `slapos computer drain`. It may
    be interrupted, and goes on when it is started again.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the computer, and what becomes of its instances."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "computer", metavar="COMPUTER", help="its reference, or ssh://USER@HOST:PORT"
        )
        parser.add_argument("--jump", default="", metavar="USER@HOST", help="hosts to go through")
        parser.add_argument(
            "--destroy-instances",
            action="store_true",
            help="destroy the trees of its instances, wherever their nodes are, instead of moving",
        )
        parser.add_argument(
            "--wait",
            type=float,
            default=PATIENCE,
            metavar="SECONDS",
            help="how long a move, and the wiping at the end, may take (default: %(default)g)",
        )
        add_ssh_options(parser)
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Ask, empty the computer, uninstall, remove it; exit 1 when something stays."""
        access = access_of(args)
        out = Console(file=sys.stderr if args.json else sys.stdout, highlight=False)

        def show(line: str) -> None:
            out.print(line, markup=False, soft_wrap=True)

        with self.master(args) as master:
            target = _target(master, args)
            facts = look_at(target, access)
            name = target.name or str(facts.record.get("computer", ""))
            computer = _computer(master, name)
            if not args.yes and not confirm("leave", _warning(target, name, computer, args)):
                print("Nothing was changed.", file=sys.stderr)
                return 1
            if computer is not None:
                _empty(master, name, args, show)
            progress = HostProgress([target], STEPS, out)
            with progress:
                found = uninstall(target, facts, access, progress.lines[0])
            if computer is not None:
                master.remove_computer(name)
        _print_result(target, name, facts, args, found=found, show=show)
        return 0


def _target(master: MasterClient, args: argparse.Namespace) -> Target:
    """Return the host that is meant."""
    if "://" in args.computer or "@" in args.computer:
        address = parse_address(args.computer, "the host")
        return Target(address, jumps=parse_jumps(args.jump, "--jump"))
    return target_of(master.computer(args.computer))


def _computer(master: MasterClient, name: str) -> Document | None:
    """Return the computer as the master knows it, None when there is nothing to remove."""
    if not name:
        return None
    try:
        computer = master.computer(name)
    except NotFoundError:
        return None
    return None if computer["state"] == "removed" else computer


def _warning(target: Target, name: str, computer: Document | None, args: argparse.Namespace) -> str:
    """Say what will happen."""
    text = f"{target.address} will be no computer any more ({name or 'it has none'}): its toolkit,"
    text += " software, partitions and users are removed."
    instances = [] if computer is None else staying(computer)
    if instances:
        names = ", ".join(map(named, instances))
        what = "DESTROYED with their whole trees" if args.destroy_instances else "moved, empty"
        text += f" These instances will be {what}: {names}."
    return text


def _empty(master: MasterClient, name: str, args: argparse.Namespace, show: Show) -> None:
    """Let no instance be on a computer any more.

    :raises CommandError: when some stay.
    """
    if args.destroy_instances:
        master.put_computer(name, state="draining")
        for root in sorted({each["root"] for each in staying(master.computer(name))}):
            _destroy(master, master.instance(root), show)
    else:
        _, refused = drain(master, name, args.wait, show)
        if refused:
            raise CommandError(
                f"{len(refused)} instances cannot go: {refused[0]['error']}",
                "make room elsewhere, change their SLA, or destroy them: --destroy-instances",
            )
    _wait_until_empty(master, name, args.wait, show)


def _destroy(master: MasterClient, root: Document, show: Show) -> None:
    """Destroy a tree."""
    show(f"{root['reference']} ({root['guid']}) is destroyed")
    kept = ("reference", "release_url", "software_type", "sla", "shared")
    master.request({**{key: root[key] for key in kept}, "parameters": {}, "state": "destroyed"})


def _wait_until_empty(master: MasterClient, name: str, seconds: float, show: Show) -> None:
    """Wait until the computer has wiped its partitions."""
    deadline = time.monotonic() + seconds
    shown = -1
    while left := master.computer(name)["instances"]:
        if len(left) != shown:
            shown = len(left)
            show(f"{name} wipes {shown} partitions")
        if time.monotonic() > deadline:
            raise CommandError(
                f"{seconds:g} s later {named(left[0])} is still on {name}",
                "see that its service runs there, then repeat the command",
            )
        time.sleep(_INTERVAL)


def _print_result(
    target: Target,
    name: str,
    facts: Facts,
    args: argparse.Namespace,
    *,
    found: bool,
    show: Show,
) -> None:
    """Say what was done."""
    if args.json:
        print_json({"host": target.address.url, "computer": name, "was_joined": found})
        return
    show(
        f"{target.address} is no computer any more."
        if found or facts.record
        else f"{target.address} was no computer: there was nothing to take away."
    )
