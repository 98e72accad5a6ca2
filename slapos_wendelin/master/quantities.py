# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Amounts of cores, memory, disk and frequency: read from text, and shown to people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal

_AMOUNT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")

#: Without "iB" a prefix counts thousands, with it 1024s, as on the labels of disks and memory.
_BYTE_UNITS = {"": 1, "b": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("kmgtp", 1)
    for suffix, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
}

_FREQUENCY_UNITS = {"": 10**6, "hz": 1, "khz": 10**3, "mhz": 10**6, "ghz": 10**9}

#: Fewer bytes than this are no memory and no disk: whoever writes 4 means another unit.
_FEWEST_BYTES = 2**20


def read_count(text: str) -> int | None:
    """Return a whole number of at least 1, or None when the text is none."""
    return int(text) if re.fullmatch(r"0*[1-9][0-9]{0,8}", text) else None


def read_bytes(text: str) -> int | None:
    """Return the bytes that a text such as 4GiB, 500 GB or 4294967296 means, or None.

    Less than 1 MiB is None too.
    """
    amount = _read(text, _BYTE_UNITS)
    return amount if amount is not None and amount >= _FEWEST_BYTES else None


def read_frequency(text: str) -> int | None:
    """Return the hertz that a text such as 2.4GHz or 2400 (MHz) means, or None."""
    return _read(text, _FREQUENCY_UNITS)


def show_bytes(amount: int) -> str:
    """Return an amount of bytes in the largest unit that leaves at least 1, exactly if short."""
    for power, prefix in ((5, "P"), (4, "T"), (3, "G"), (2, "M"), (1, "K")):
        if amount >= 1024**power:
            return f"{_decimals(amount, 1024**power)} {prefix}iB"
    return f"{amount} B"


def show_frequency(amount: int) -> str:
    """Return a frequency in MHz."""
    return f"{_decimals(amount, 10**6)} MHz"


def _read(text: str, units: Mapping[str, int]) -> int | None:
    """Return the amount that a number and a unit make, rounded up; None when they make none."""
    match = _AMOUNT.fullmatch(text.strip())
    factor = units.get(match[2].lower()) if match else None
    if match is None or factor is None:
        return None
    amount = int((Decimal(match[1]) * factor).to_integral_value(ROUND_CEILING))
    return amount or None


def _decimals(amount: int, unit: int) -> str:
    """Return an amount in a unit with three decimals at most."""
    return f"{amount / unit:.3f}".rstrip("0").rstrip(".")
