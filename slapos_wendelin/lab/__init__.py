# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many hosts on one machine: data centers that are cut, hosts that lose their power."""

from slapos_wendelin.lab.data_centers import DataCenter
from slapos_wendelin.lab.errors import LabError
from slapos_wendelin.lab.hosts import Host
from slapos_wendelin.lab.lab import Lab
from slapos_wendelin.lab.links import Link

__all__ = ["DataCenter", "Host", "Lab", "LabError", "Link"]
