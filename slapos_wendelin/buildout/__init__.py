# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stock zc.buildout lacks for SlapOS profiles."""

from typing import TYPE_CHECKING

from slapos_wendelin import slap_trust
from slapos_wendelin.buildout import patches
from slapos_wendelin.buildout.base_location import bind_base_locations

if TYPE_CHECKING:
    from zc.buildout.buildout import Buildout


def extension(buildout: "Buildout") -> None:
    """Prepare a buildout for SlapOS profiles: entry point of ``extensions = slapos_wendelin``.

    :raises ProfileError: zc.buildout is not of the supported major version.
    """
    slap_trust.install()
    patches.check_version()
    patches.apply()
    bind_base_locations(buildout)
