# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How two documents differ, value by value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final


class Missing:
    """What stands where a document has no value."""

    def __repr__(self) -> str:
        return "nothing"


MISSING: Final = Missing()


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that differs: its path with dots, what it was and what it is."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is MISSING:
            return f"{self.path}: {shown(self.after)}"
        if self.after is MISSING:
            return f"{self.path}: {shown(self.before)} → (none)"
        return f"{self.path}: {shown(self.before)} → {shown(self.after)}"


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], path: str = ""
) -> Iterator[Difference]:
    """Yield what differs, by key; objects are compared key by key, lists as a whole."""
    for key in sorted({*before, *after}):
        old, new = before.get(key, MISSING), after.get(key, MISSING)
        here = f"{path}.{key}" if path else key
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, here)
        elif isinstance(new, Mapping) and new and old is MISSING:
            yield from differences({}, new, here)
        elif isinstance(old, Mapping) and old and new is MISSING:
            yield from differences(old, {}, here)
        elif not _same(old, new):
            yield Difference(here, old, new)


def shown(value: object) -> str:
    """Return a value on one line: a plain text as it is, anything else as JSON."""
    if isinstance(value, Missing):
        return "(none)"
    if isinstance(value, str) and value and value.isprintable() and value.strip() == value:
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _same(old: object, new: object) -> bool:
    """Say whether two values are the same JSON, which tells true from 1 and 1 from 1.0."""
    if isinstance(old, Missing) or isinstance(new, Missing):
        return old is new
    return json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
