# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the cache of compiled parts."""

from slapos_wendelin.errors import WendelinError


class CacheError(WendelinError):
    """The cache cannot be reached, or holds what must not be used."""


class NotInCacheError(CacheError):
    """The cache does not hold a part."""


class UnreachableError(CacheError):
    """The cache does not answer."""
