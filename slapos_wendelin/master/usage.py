# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the usage reports that ``slapos node collect`` writes and ``slapos node report`` sends.

A report holds averages over one day. What other programs of a partition report is for billing,
which this master does not do: it is passed over.
"""

from __future__ import annotations

import math
from typing import Any

from slapos_wendelin.master.checks import shown
from slapos_wendelin.master.errors import InvalidRequestError
from slapos_wendelin.master.marshalling import parse_xml

_MEBIBYTE = 2**20

#: The averages of a computer and of a partition, each with what makes it bytes or percent.
_OF_COMPUTER = {"cpu_load_percent": 1.0, "memory_used": 1.0}
_OF_PARTITION = {"cpu_load_percent": 1.0, "memory_used": _MEBIBYTE, "disk_used": _MEBIBYTE}

_REMEDY = "send it as `slapos node report` does"

#: How many characters of a date say the day.
_DAY = len("2000-01-01")


def read_usage(xml: str, computer: str, field: str) -> dict[str, Any]:
    """Return the averages in a report; nothing when it has none.

    :param field: what the report came in, for the error's text.
    :returns: ``date``, ``computer`` (averages) and ``partitions`` (averages by the name of the
        partition's system user); memory and disk in bytes.
    :raises InvalidRequestError: when it is no report.
    """
    if not xml.strip():
        return {}
    root = parse_xml(xml, field, _REMEDY)
    if root.tag != "journal":
        raise InvalidRequestError(f"{field} is a <{root.tag}>, not a <journal>", _REMEDY)
    averages: dict[str, dict[str, float]] = {}
    for movement in root.iterfind("transaction/movement"):
        whose = movement.findtext("reference", "")
        resource = movement.findtext("resource", "").removeprefix("service_module/")
        factor = (_OF_COMPUTER if whose == computer else _OF_PARTITION).get(resource)
        if whose and factor is not None:
            quantity = _quantity(movement.findtext("quantity", ""), field, resource)
            averages.setdefault(whose, {})[resource] = round(factor * quantity, 2)
    if not averages:
        return {}
    of_computer = averages.pop(computer, {})
    date = root.findtext("transaction/start_date", "")[:_DAY]
    return {"date": date, "computer": of_computer, "partitions": averages}


def _quantity(text: str, field: str, resource: str) -> float:
    """Return a quantity of a report."""
    try:
        quantity = float(text)
    except ValueError:
        quantity = math.nan
    if not math.isfinite(quantity):
        raise InvalidRequestError(
            f"{field}: the quantity of {shown(resource)} is {shown(text)}", _REMEDY
        )
    return quantity
