# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of several modules need."""

from compiled_mariadb import compiled

__all__ = ["compiled"]
