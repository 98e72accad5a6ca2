# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos cluster catalog`` and ``slapos cluster product``: names instead of release URLs."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table
from rich.text import Text

from slapos_wendelin.cli.client_command import ClientCommand, JsonCommand, print_json
from slapos_wendelin.cli.history import print_transactions
from slapos_wendelin.cli.parameters_file import ParametersFile
from slapos_wendelin.cli.plan_text import console
from slapos_wendelin.cli.release import Release, absolute
from slapos_wendelin.differences import differences, shown
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.master.client import Document, MasterClient, NotFoundError

ADD, REMOVE = "add", "remove"


class CatalogCommand(JsonCommand):
    """show the products that can be requested by name, or the versions that one had."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the name of one product."""
        parser = super().get_parser(prog_name)
        parser.add_argument("product", nargs="?", help="show this one and the versions that it had")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Print the catalog."""
        with self.master(args) as master:
            if args.product:
                return _show_product(master, args)
            products = master.products()
        if args.json:
            print_json(products)
            return 0
        if not products:
            console().print("The catalog is empty: see `slapos cluster product add`.")
            return 0
        table = Table("product", "version", "type")
        table.add_column("release", overflow="fold")
        for each in products:
            cells = (each[key] for key in ("name", "version", "software_type", "release_url"))
            table.add_row(*map(Text, cells))
        console().print(table)
        return 0


class ProductCommand(ClientCommand):
    """add a product to the catalog, give it another version, or remove it.

    Instances stay as they are: `slapos request NAME` upgrades one.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take what to do with which product."""
        parser = super().get_parser(prog_name)
        parser.add_argument("action", choices=(ADD, REMOVE))
        parser.add_argument("product", help="its name")
        parser.add_argument("url", nargs="?", help="URL of its release")
        parser.add_argument("--type", default="default", help="software type")
        # slapos itself takes --version.
        parser.add_argument(
            "--release-version", default="", metavar="VERSION", help="how people call this release"
        )
        parser.add_argument(
            "--defaults-file", type=Path, help="parameters for what a request leaves out, in a file"
        )
        parser.add_argument("--unchecked", action="store_true", help="do not read the release")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Change the catalog and print what that changed."""
        with self.master(args) as master:
            if args.action == REMOVE:
                removed = master.remove_product(args.product)
                console().print(f"{args.product} is removed; it was {removed['release_url']}.")
                return 0
            _add(master, args)
        return 0


def _add(master: MasterClient, args: argparse.Namespace) -> None:
    """Put a product into the catalog."""
    if not args.url:
        raise ParameterError("no release is named", "give its URL after the product's name")
    defaults = ParametersFile(args.defaults_file).values if args.defaults_file else {}
    url = absolute(args.url)
    if not args.unchecked:
        release = Release(url, args.type)
        release.check()
        release.complete(defaults, None)
    before = _product(master, args.product)
    after = master.put_product(args.product, url, args.type, args.release_version, defaults)
    out = console()
    if before is None:
        out.print(f"{args.product} is added. Request it: slapos request {args.product}")
        return
    changes = list(differences(before, after))
    if not changes:
        out.print(f"{args.product} is as it was.")
        return
    out.print(f"{args.product} is changed:")
    for each in changes:
        out.print(f"  {each}")
    out.print(f"`slapos request {args.product}` upgrades the instance of that name.")


def _product(master: MasterClient, name: str) -> Document | None:
    """Return a product, or None when the catalog has none of that name."""
    try:
        return master.product(name)
    except NotFoundError:
        return None


def _show_product(master: MasterClient, args: argparse.Namespace) -> int:
    """Print a product and what it was before."""
    product = _product(master, args.product)
    past = master.history(product=args.product)
    if product is None and not past["changes"]:
        master.product(args.product)  # says which products there are
    if args.json:
        print_json({"product": product, "history": past["changes"]})
        return 0
    out = console()
    for key, value in (product or {}).items():
        out.print(f"{key:<14} {shown(value)}")
    if product is None:
        out.print(f"{args.product} is not in the catalog any more.")
    print_transactions(past["changes"], out)
    return 0
