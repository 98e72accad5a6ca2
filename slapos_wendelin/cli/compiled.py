# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos cache key | push | pull``: compiled parts that computers share."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from slapos.cli.command import Command

from slapos_wendelin.cli.client_command import Parser, print_json
from slapos_wendelin.compiled.cache import Cache, compiled_parts
from slapos_wendelin.compiled.errors import CacheError
from slapos_wendelin.compiled.keys import make_key, read_private_key, read_public_keys
from slapos_wendelin.compiled.places import open_place
from slapos_wendelin.compiled.pulling import pull
from slapos_wendelin.recipe.stored import KEYS_VARIABLE, PLACE_VARIABLE

_MIB = 1024 * 1024


class KeyCommand(Command):
    """make a key that signs compiled parts, and print its public key."""

    command_group = "cache"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the file."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            "file", type=Path, help="for the private key; only its owner may read it"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Make the key and print its public key, alone on the line."""
        print(make_key(parsed_args.file))
        return 0


class _PartsCommand(Command):
    """A command about shared parts and a cache."""

    command_group = "cache"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the cache, the folder of shared parts and the names of parts."""
        parser = Parser(prog_name, description=self.get_description())
        parser.add_argument("cache", metavar="FOLDER|URL", help="where the cache is")
        parser.add_argument(
            "names", nargs="*", metavar="PART", help="such as mariadb (default: all)"
        )
        parser.add_argument(
            "--parts",
            type=Path,
            metavar="FOLDER",
            help="folder of shared parts (default: that of the environment of ./wendelin)",
        )
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")
        return parser


class PushCommand(_PartsCommand):
    """put what was compiled here into a cache, signed."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the key too."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--key", type=Path, required=True, metavar="FILE", help="that slapos cache key has made"
        )
        parser.add_argument("--again", action="store_true", help="also what the cache has already")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Push the parts, telling of each."""
        args = parsed_args
        root = parts_folder(args.parts)
        key = read_private_key(args.key)
        cache = Cache(open_place(args.cache))
        parts = list(compiled_parts(root, args.names))
        _require(args.names, {part.parent.name for part in parts}, root)
        told = []
        for part in parts:
            begin = time.monotonic()
            is_new = cache.push(part, key, again=args.again)
            told.append({"part": part.parent.name, "digest": part.name, "pushed": is_new})
            if not args.json:
                state = f"pushed in {time.monotonic() - begin:.1f} s" if is_new else "is there"
                print(f"{part.parent.name} {part.name}  {state}")
        _finish(args, told, f"there is nothing compiled in {root}")
        return 0


class PullCommand(_PartsCommand):
    """take from a cache what others have compiled for systems like this one."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the trusted keys too."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--trust",
            action="append",
            default=[],
            metavar="KEY|FILE",
            help=f"public key, or file of public keys (default: ${KEYS_VARIABLE})",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Pull the parts, telling of each."""
        args = parsed_args
        root = parts_folder(args.parts)
        keys = read_public_keys(args.trust or os.environ.get(KEYS_VARIABLE, "").split())
        cache = Cache(open_place(args.cache))
        told = []
        for pulled in pull(cache, root, keys, args.names):
            told.append(
                {"part": pulled.note.name, "digest": pulled.note.digest, "outcome": pulled.outcome}
            )
            if not args.json:
                size = f"{pulled.note.size / _MIB:.1f} MiB"
                print(f"{pulled.note.name} {pulled.note.digest}  {size}  {pulled.outcome}")
        _require(args.names, {each["part"] for each in told}, cache.place)
        _finish(args, told, f"the cache {cache.place} is empty")
        return 0


def parts_folder(given: Path | None) -> Path:
    """Return the folder of shared parts; raises CacheError when nothing says which."""
    if given is not None:
        return given.expanduser().absolute()
    home = os.environ.get("WENDELIN_HOME")
    if not home:
        raise CacheError(
            "nothing says where the shared parts are",
            "add --parts FOLDER, or call it as ./wendelin run slapos cache ...",
        )
    return Path(home, "parts")


def _require(names: Sequence[str], found: set[str], place: object) -> None:
    """Refuse names of parts that are nowhere; raises CacheError."""
    missing = [name for name in names if name not in found]
    if missing:
        raise CacheError(
            f"{place} has no compiled {' and no '.join(missing)}",
            "./wendelin build component/NAME compiles it",
        )


def _finish(args: argparse.Namespace, told: list[dict[str, object]], nothing: str) -> None:
    """Print all at once for programs; tell people that there was nothing."""
    if args.json:
        print_json(told)
    elif not told:
        print(f"Nothing to do: {nothing}.")
    elif hasattr(args, "key"):
        print(f"Others take it with:  {PLACE_VARIABLE}={args.cache} and {KEYS_VARIABLE}=KEY")
