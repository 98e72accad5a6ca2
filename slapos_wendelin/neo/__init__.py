# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays in NEO and helpers for clients of a NEO cluster.

`ndarray` has the arrays, `reference` names an array so that other processes can use it, `client`
opens databases and retries transactions. Nothing is imported here: numpy, zarr and ZODB belong
to the analytics environment, and other parts of the package run without them.
"""
