# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on a host that becomes a computer, or that is to be none any more.

These modules are sent over SSH and run with the host's own Python: nothing else is imported than
its standard library, ``errors.py`` and ``files.py``.
"""
