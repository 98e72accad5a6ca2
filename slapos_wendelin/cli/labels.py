# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option with which commands give labels to a computer."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from slapos_wendelin.errors import ParameterError


def add_label_option(parser: argparse.ArgumentParser) -> None:
    """Take labels."""
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a label of the computer, such as storage_type=ssd (may be repeated)",
    )


def labels_of(pairs: Iterable[str]) -> dict[str, str]:
    """Return the labels that were given.

    :raises ParameterError: when one has no name or no value.
    """
    labels = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise ParameterError(f"--label is {pair!r}", "write NAME=VALUE")
        labels[name] = value
    return labels
