# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill a mirror of all sources."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from rich.console import Console

from slapos_wendelin.local.progress import Progress
from slapos_wendelin.mirror.filling import Filler, Outcome
from slapos_wendelin.mirror.folder import MirrorFolder
from slapos_wendelin.mirror.needs import read_needs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of ``./wendelin mirror``."""
    parser.add_argument("folder", type=Path, help="new, or a mirror to complete")
    parser.add_argument(
        "--look-in",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="where archives may already be, such as another mirror (may be repeated)",
    )
    parser.add_argument("--no-python", action="store_true", help="leave out the Python packages")
    parser.add_argument("--tests", action="store_true", help="what the tests need too")
    parser.add_argument("--json", action="store_true", help="for programs")


def mirror(options: argparse.Namespace) -> int:
    """Fill a folder with every source of the releases; exit 1 when some are missing."""
    folder = MirrorFolder(absolute(options.folder))
    needs = read_needs(options.release, tests=options.tests)
    progress = Progress(Console(stderr=True, highlight=False, soft_wrap=True))
    filler = Filler(folder, look_in=[absolute(path) for path in options.look_in])
    with progress.step("look for all sources") as say:
        outcome = filler.fill(needs, say, python=not options.no_python)
    if options.json:
        document = {"folder": str(folder.root), "found": outcome.found, "missing": outcome.missing}
        json.dump(document, sys.stdout, indent=2)
    else:
        _print(folder, outcome)
    return int(bool(outcome.missing))


def absolute(path: Path) -> Path:
    """Return a path that the user gave in the folder where ./wendelin was called."""
    return Path(os.environ.get("WENDELIN_FOLDER", "."), path.expanduser()).absolute()


def _print(folder: MirrorFolder, outcome: Outcome) -> None:
    """Print what was found where, what is missing, and how to go on."""
    for name, place in outcome.found.items():
        print(f"✓ {name.rpartition('/')[2] if '://' in name else name}  from {place}")
    for text in outcome.missing:
        print(f"✗ {text}")
    if outcome.missing:
        print(
            f"\n{len(outcome.missing)} missing: {folder.root} is not complete.\n"
            "Next:  get them where they can be reached, then ./wendelin mirror FOLDER --look-in "
            "WHERE-THEY-ARE"
        )
    else:
        print(f"\n{folder.root} is complete. Next:  ./wendelin build --from {folder.root} PROFILE")
