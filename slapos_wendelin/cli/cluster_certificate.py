# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos cluster certificate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from slapos_wendelin.cli.browser_file import write_browser_file
from slapos_wendelin.cli.client_command import JsonCommand, print_json
from slapos_wendelin.cluster_identity import keep_for_user


class ClusterCertificateCommand(JsonCommand):
    """let the programs of this user use a cluster, or renew what lets them.

    Makes a key and gets a certificate for it, unless there is one that is good for some time.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the cluster and the folder."""
        parser = super().get_parser(prog_name)
        parser.add_argument("cluster", help="the name that it was requested under, or its guid")
        parser.add_argument(
            "folder",
            nargs="?",
            type=Path,
            help="where to keep key and certificate (default: ~/.slapos/certificates/NAME,"
            " where the cluster's clients look for them)",
        )
        parser.add_argument(
            "--browser",
            type=Path,
            metavar="FILE",
            help="write both for browsers too (PKCS #12), with a password that is told once",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock returns None)
        """Get the certificate and print where it is."""
        with self.master(args) as master:
            done = keep_for_user(master, args.cluster, args.folder)
        if args.browser is not None:
            folder = Path(done["folder"])
            done["password"] = write_browser_file(folder, done["cluster"], args.browser)
        if args.json:
            print_json(done)
            return 0
        print(f"The certificate in {done['folder']} is good until {done['not_after'][:10]}.")
        if args.folder is not None:
            print(f"Clients find it with: export WENDELIN_CERTIFICATES={done['folder']}")
        if done["zodb-uri"]:
            print(f"In Python: slapos_wendelin.neo.client.open_database({done['zodb-uri']!r})")
        if args.browser is not None:
            print(f"Import {args.browser} in the browser; its password: {done['password']}")
        return 0
