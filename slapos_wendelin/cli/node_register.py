# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos node register`` that joins a master of ours with a token.

With ``--master-url-web`` it is slapos.core's, for other masters; that one is checked too.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path

from slapos.cli.register import RegisterCommand as StockRegisterCommand
from slapos.cli.register import RegisterConfig, save_former_config, slapconfig

from slapos_wendelin.cli.configure_client import asked_token, join_ours_by_default, required_url
from slapos_wendelin.errors import CommandError
from slapos_wendelin.joining import join


class RegisterCommand(StockRegisterCommand):
    """join a master with a token, and write the configuration of this computer."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the stock options and the authority's file."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        join_ours_by_default(parser)
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock exits instead)
        """Get a certificate and write the configuration."""
        if args.master_url_web:
            status: int = super().take_action(args)
            return status
        url = required_url(args)
        folder = Path(self.config_path(args)).absolute().parent
        if args.dry_run:
            print(f"Would join {url} as computer {args.node_name} and write {folder}.")
            return 0
        try:
            self._register(args, url, folder)
        except OSError as error:
            raise CommandError(
                f"the configuration in {folder} cannot be written: {error}",
                "run this as root, or write another one with --cfg",
            ) from error
        print(f"Joined {url} as computer {args.node_name}; the configuration is in {folder}.")
        print("Next:  slapos node format --now")
        return 0

    def _register(self, args: argparse.Namespace, url: str, folder: Path) -> None:
        """Join, and put what comes of it in the place of a former configuration."""
        # What was got is kept beside until all is written, so that the command can be repeated.
        waiting = folder.with_name(f"{folder.name}.joining")
        waiting.mkdir(mode=0o700, parents=True, exist_ok=True)
        certificate, key = waiting / "certificate", waiting / "key"
        join(
            url,
            asked_token(args),
            certificate=certificate,
            key=key,
            name=args.node_name,
            ca_file=args.ca_file,
        )
        settings = RegisterConfig(logger=logging.getLogger("slapos"))
        settings.setConfig(args)
        settings.COMPConfig(
            slapos_configuration=str(folder),
            computer_id=args.node_name,
            certificate=certificate.read_text(),
            key=key.read_text(),
        )
        save_former_config(settings)
        folder.parent.mkdir(parents=True, exist_ok=True)
        slapconfig(settings)
        shutil.rmtree(waiting)
