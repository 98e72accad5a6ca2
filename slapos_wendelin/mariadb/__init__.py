# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A storage node's MariaDB: its data folder, its configuration, its start and its logs.

What is here runs in the environment of NEO's servers, with the standard library and psutil alone.
"""
