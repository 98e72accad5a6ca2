# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""slapos.core's watchdog, which slapgrid's supervisord starts, under every Python."""

from __future__ import annotations

import importlib

from slapos_wendelin.cli.module_files import accept_module_names


def main() -> None:
    """Run the watchdog."""
    accept_module_names()
    importlib.import_module("slapos.grid.watchdog").main()
