# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos computer create``: a machine is made at a cloud, then joined."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from rich.console import Console

from slapos_wendelin.cli.client_command import JsonCommand
from slapos_wendelin.cli.join import (
    JoinCommand,
    add_join_options,
    add_ssh_options,
    add_target_options,
    join_all,
    target_of,
)
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.local.progress import Progress
from slapos_wendelin.remote.clouds import Cloud, Machine
from slapos_wendelin.remote.target import Address, Target

#: Seconds that a new machine gets until its SSH answers.
_PATIENCE = 600.0


class CreateCommand(JoinCommand):
    """make a machine at a cloud and join it; a machine of the same name is used again.

    Credentials are taken from the environment: CLOUD_KEY and CLOUD_SECRET.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the machine, and how to go about joining it."""
        parser = JsonCommand.get_parser(self, prog_name)
        add = parser.add_argument
        add("--cloud-region", default="", metavar="NAME", help="the cloud's name of the region")
        add("--endpoint", default="", metavar="URL", help="the cloud's API (default: its own)")
        add("--image", required=True, metavar="ID", help="a Debian or Ubuntu image of the cloud")
        add("--size", required=True, metavar="ID", help="the kind of machine, such as t3.medium")
        add("--key-name", metavar="NAME", help="the key pair, known to the cloud, that logs in")
        add("--user", default="admin", help="who logs in (default: %(default)s)")
        add("--private", action="store_true", help="use the machine's private address")
        add(
            "--option",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="what else libcloud takes for this cloud, such as ex_subnet (may be repeated)",
        )
        add(
            "--machine-wait",
            type=float,
            default=_PATIENCE,
            metavar="SECONDS",
            help="how long until its SSH answers (default: %(default)g)",
        )
        add_target_options(parser)
        add_join_options(parser)
        add_ssh_options(parser)
        parser.set_defaults(host="", inventory=None)
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Make the machine, then join it."""
        for name in ("name", "datacenter", "provider"):
            if not getattr(args, name):
                raise ParameterError(f"no {name} is named", f"add --{name} NAME")
        if not args.accept_new_host_key:
            raise ParameterError(
                "the key of a machine that is made now cannot be known",
                "add --accept-new-host-key to trust what it shows at first",
            )
        target = target_of(args, args.name)
        settings = self.settings(args, 1)
        if args.dry_run:
            print(
                f"Would make {args.name} ({args.size}, {args.image}) at {args.provider}, join it."
            )
            return 0
        return join_all([_made(target, args)], settings, args)


def _made(target: Target, args: argparse.Namespace) -> Target:
    """Return the target with the address of a machine that is made, or was made before."""
    out = Console(file=sys.stderr if args.json else sys.stdout, highlight=False, soft_wrap=True)
    cloud = Cloud(args.provider, args.cloud_region, args.endpoint)
    options = dict(_pairs(args.option))
    if args.key_name:
        options["ex_keyname"] = args.key_name
    wanted = Machine(args.name, args.image, args.size, options)
    progress = Progress(out)
    with progress.step(f"make {args.name} at {args.provider}") as say:
        node, _ = cloud.machine(wanted)
        address = cloud.address(node, private=args.private, seconds=args.machine_wait, say=say)
    labels = {**target.labels, "machine": str(node.id)}
    return replace(target, address=Address(address, None, args.user), labels=labels)


def _pairs(options: list[str]) -> list[tuple[str, str]]:
    """Return the keys and values of options."""
    pairs = []
    for each in options:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise ParameterError(f"--option is {each!r}", "write KEY=VALUE")
        pairs.append((key, value))
    return pairs
