# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds, places and keeps alive Wendelin clusters over several data centers."""
