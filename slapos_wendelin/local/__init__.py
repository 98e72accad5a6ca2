# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment that ``./wendelin up`` makes: a master and three computers on one machine."""
