# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos computer join``: hosts become computers, over SSH."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slapos_wendelin import tokens
from slapos_wendelin.cli.build_options import ARGUMENTS, add_build_options, builds_of
from slapos_wendelin.cli.client_command import JsonCommand, print_json
from slapos_wendelin.cli.host_progress import HostLine, HostProgress
from slapos_wendelin.cli.inventory import read_inventory
from slapos_wendelin.cli.labels import add_label_option, labels_of
from slapos_wendelin.cli.outcome import INTERRUPTED
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.master.client import MasterClient
from slapos_wendelin.remote.fleet import PARALLEL, Names, for_all
from slapos_wendelin.remote.joining import (
    DATA,
    PREFIX,
    STEPS,
    HostJoining,
    Outcome,
    Settings,
)
from slapos_wendelin.remote.ssh import Access
from slapos_wendelin.remote.target import Target, check_addresses, parse_address, parse_jumps
from slapos_wendelin.remote.wheelhouse import Wheelhouse, default_cache

#: A folder on hosts: below it are sockets, whose paths are short on Linux.
_FOLDER = re.compile(r"(?=.{2,60}$)(/[A-Za-z0-9][A-Za-z0-9._-]*)+")
#: The exit status when something failed.
_FAILED = 1


class JoinCommand(JsonCommand):
    """make computers of Debian or Ubuntu hosts, over SSH; may be repeated at any time.

    What a host lacks is said before anything is changed. A repeated join goes on where the last one
    stopped, and does nothing where nothing is to be done.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the host or the inventory, and how to go about it."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "host", nargs="?", default="", metavar="ssh://USER@HOST:PORT", help="the host to join"
        )
        parser.add_argument(
            "--inventory", type=Path, metavar="FILE", help="a YAML file of hosts, instead of one"
        )
        add_target_options(parser)
        add_join_options(parser)
        add_ssh_options(parser)
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Join, and say what came of each host; exit 1 when one failed."""
        targets = targets_of(args)
        settings = self.settings(args, len(targets))
        return join_all(targets, settings, args)

    def settings(self, args: argparse.Namespace, count: int) -> Settings:
        """Return what is the same for all hosts."""
        connect = None
        if args.token:
            tokens.fingerprint_of(args.token)
            if count > 1:
                raise ParameterError(
                    "--token lets in one computer, and the inventory has more",
                    "leave it out: as an operator you make a token for each",
                )
            url = args.hosts_url
        else:
            connect = partial(self.master, args)
            with connect() as master:
                master.health()
                url = args.hosts_url or master.url
        return settings_of(args, url, connect)


def settings_of(
    args: argparse.Namespace, url: str | None, connect: Callable[[], MasterClient] | None
) -> Settings:
    """Return the settings of the options.

    :raises ParameterError: for a URL that hosts cannot use.
    """
    if not url or urlsplit(url).scheme != "https":
        raise ParameterError(
            f"the master's URL is {url or 'not known'}, and hosts join by https only",
            "start the master with --authority, or name its https URL with --master-url",
        )
    for option in ("prefix", "data"):
        folder = Path(getattr(args, option))
        if not _FOLDER.fullmatch(str(folder)) or folder.is_relative_to("/root"):
            raise ParameterError(
                f"--{option} is {folder}",
                "name an absolute path of letters, digits, dots, hyphens, at most 60 characters, "
                "outside of /root: users of partitions have to reach it",
            )
    return Settings(
        master_url=url.rstrip("/"),
        access=access_of(args),
        connect=connect,
        prefix=args.prefix.rstrip("/"),
        data=args.data.rstrip("/"),
        token=args.token or "",
        replace=args.replace,
        dry_run=args.dry_run,
        offline=args.offline,
    )


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Take what one host is to be."""
    for name, what in (
        ("name", "reference of the computer (default: the host's own name)"),
        ("datacenter", "its data center"),
        ("region", "its region"),
        ("provider", "who runs it"),
        ("network", "its network"),
    ):
        parser.add_argument(f"--{name}", metavar="NAME", default="", help=what)
    parser.add_argument(
        "--jump",
        metavar="USER@HOST",
        default="",
        help="hosts to go through, with commas in between",
    )
    parser.add_argument(
        "--partitions", type=int, metavar="N", help="how many partitions it has (default: 20)"
    )
    parser.add_argument(
        "--addresses",
        default="",
        metavar="NETWORK",
        help="an address for each partition, such as 10.0.1.16/28 (default: the host's own)",
    )
    add_label_option(parser)
    add_build_options(parser)


def add_join_options(parser: argparse.ArgumentParser) -> None:
    """Take how to join."""
    add = parser.add_argument
    add(
        "--master-url",
        dest="hosts_url",
        metavar="URL",
        help="the master's URL as hosts reach it (default: yours)",
    )
    add("--token", help="a token made for this computer (default: you make it, as an operator)")
    add("--replace", action="store_true", help="take the place of the computer of that name")
    add("--prefix", default=PREFIX, help="where the toolkit goes there (default: %(default)s)")
    add(
        "--data",
        default=DATA,
        help="where software and partitions go there (default: %(default)s)",
    )
    add("--dry-run", action="store_true", help="check, and say what would be done")
    add("--offline", action="store_true", help="send all wheels, even to hosts with a network")
    add(
        "--parallel",
        type=int,
        default=PARALLEL,
        metavar="N",
        help="hosts to work on at once (default: %(default)s)",
    )


def add_ssh_options(parser: argparse.ArgumentParser) -> None:
    """Take how hosts are entered."""
    add = parser.add_argument
    add("--identity", type=Path, metavar="FILE", help="private key (default: agent and ~/.ssh)")
    add(
        "--known-hosts",
        type=Path,
        default=Access.known_hosts,
        metavar="FILE",
        help="keys of hosts (default: %(default)s)",
    )
    add(
        "--accept-new-host-key",
        action="store_true",
        help="trust hosts that were never met, and remember their keys; changed keys are refused",
    )
    add(
        "--ssh-config",
        type=Path,
        default=Access.configuration,
        metavar="FILE",
        help="OpenSSH's configuration (default: %(default)s)",
    )


def access_of(args: argparse.Namespace) -> Access:
    """Return how hosts are entered."""
    # What goes wrong is told by our errors, once.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    return Access(
        known_hosts=args.known_hosts,
        identity=args.identity,
        accept_new=args.accept_new_host_key,
        configuration=args.ssh_config,
    )


def targets_of(args: argparse.Namespace) -> list[Target]:
    """Return the hosts that the options name.

    :raises ParameterError: when they name none, or something that is none.
    """
    if bool(args.host) == bool(args.inventory):
        raise ParameterError(
            "name one host, or an inventory",
            "slapos computer join ssh://USER@HOST --datacenter NAME",
        )
    if args.inventory:
        own = ("name", "datacenter", "region", "provider", "network", "jump", "addresses", "label")
        given = [name for name in own if getattr(args, name)]
        given += [name for name in ARGUMENTS if getattr(args, name) is not None]
        if given:
            raise ParameterError(
                f"--{given[0].replace('_', '-')} is for one host",
                "say it in the inventory, for all or some hosts",
            )
        return read_inventory(args.inventory)
    if not args.datacenter and not args.token:
        raise ParameterError("no data center is named", "add --datacenter NAME")
    return [target_of(args, args.host)]


def target_of(args: argparse.Namespace, host: str) -> Target:
    """Return the one host of the options."""
    check_addresses(args.addresses, args.partitions, "--addresses")
    if args.partitions is not None and args.partitions < 1:
        raise ParameterError(f"--partitions is {args.partitions}", "give a number from 1")
    return Target(
        address=parse_address(host, "the host"),
        name=args.name,
        jumps=parse_jumps(args.jump, "--jump"),
        datacenter=args.datacenter,
        region=args.region,
        provider=args.provider,
        network=args.network,
        labels=labels_of(args.label),
        partitions=args.partitions,
        addresses=args.addresses,
        builds=builds_of(args),
    )


def join_all(targets: list[Target], settings: Settings, args: argparse.Namespace) -> int:
    """Join all hosts, print what came of them, and return the exit status."""
    out = Console(file=sys.stderr, highlight=False) if args.json else Console(highlight=False)
    progress = HostProgress(targets, STEPS, out)
    with tempfile.TemporaryDirectory(prefix="slapos-join-") as work, progress:
        wheelhouse, names = Wheelhouse(default_cache(), Path(work)), Names()

        def join(pair: tuple[Target, HostLine]) -> Outcome:
            target, line = pair
            outcome = HostJoining(target, settings, wheelhouse, line, names).run()
            line.finish(outcome.result, outcome.error)
            return outcome

        try:
            outcomes = for_all(list(zip(targets, progress.lines, strict=True)), join, args.parallel)
        except KeyboardInterrupt:
            out.print("Interrupted. Repeat the command to go on where it stopped.")
            return INTERRUPTED
    if args.json:
        print_json([each.document for each in outcomes])
    else:
        print_outcomes(outcomes, out)
    return _FAILED if any(each.result == "failed" for each in outcomes) else 0


def print_outcomes(outcomes: list[Outcome], out: Console) -> None:
    """Print the table at the end, then what is to be known or mended."""
    table = Table("host", "computer", "data center", "result", "seconds", box=SIMPLE_HEAD)
    styles = {"failed": "red", "joined": "green", "fit": "green"}
    for each in outcomes:
        table.add_row(
            Text(str(each.target.address)),
            Text(each.name),
            Text(each.target.datacenter),
            Text(each.result, style=styles.get(each.result, "")),
            f"{each.seconds:.1f}",
        )
    out.print(table)
    for each in outcomes:
        for note in each.notes:
            out.print(f"{each.name}: {note}", markup=False, soft_wrap=True)
    for each in outcomes:
        if each.error:
            out.print(f"{each.target.address} failed: {each.error}", markup=False, soft_wrap=True)
            if each.remedy:
                out.print(f"  remedy: {each.remedy}", markup=False, soft_wrap=True)
