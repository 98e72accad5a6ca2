# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How our commands find the master of a client's configuration and call it."""

from __future__ import annotations

import argparse
import configparser

from slapos.client import ClientConfig

from slapos_wendelin.errors import ParameterError
from slapos_wendelin.master.client import MasterClient


def client_settings(
    arguments: argparse.Namespace, configuration: configparser.ConfigParser
) -> ClientConfig:
    """Return the settings of a client's configuration with the command's arguments in them.

    :raises ParameterError: when the configuration names no master, or no certificate for it.
    """
    try:
        return ClientConfig(arguments, configuration)
    except (ValueError, configparser.Error) as error:
        raise ParameterError(
            f"the configuration of this client is not complete: {error}",
            "make it with `slapos configure client --master-url URL --token TOKEN`",
        ) from error


def connect(settings: ClientConfig) -> MasterClient:
    """Return a client of the settings' master."""
    return MasterClient(
        settings.master_url, certificate=settings.cert_file or None, key=settings.key_file or None
    )
