# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hide from viewers what looks like a secret."""

from __future__ import annotations

import json
import re
from typing import Any

#: What stands where a secret was.
HIDDEN = "(hidden)"

#: Keys whose values are secrets. A word counts at the borders that -, _, . or case make.
_SECRET_WORDS = frozenset(
    {
        *("auth", "authorization", "cookie", "credential", "credentials", "key", "keys"),
        *("pass", "passphrase", "passwd", "password", "passwords", "private", "pwd"),
        *("secret", "secrets", "token", "tokens", "apikey"),
    }
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

#: The password of a URL: what stands between the user's name and the host.
_PASSWORD_IN_URL = re.compile(r"(?<=://)([^\s/@:]*):[^\s/@]+(?=@)")


def is_secret(key: str) -> bool:
    """Say whether the name of a value says that it is a secret."""
    return any(word.lower() in _SECRET_WORDS for word in _WORD.findall(key))


def masked(value: Any) -> Any:
    """Return a document with its secrets hidden, however deep they are."""
    if isinstance(value, dict):
        return {key: _masked_item(str(key), each) for key, each in value.items()}
    if isinstance(value, list):
        return [masked(each) for each in value]
    if isinstance(value, str):
        return _PASSWORD_IN_URL.sub(rf"\1:{HIDDEN}", value)
    return value


def _masked_item(key: str, value: Any) -> Any:
    """Return the value of a key, hidden when the key says so; ``_`` holds JSON as a text."""
    if is_secret(key) and value is not None and value != "":
        return HIDDEN
    if key == "_" and isinstance(value, str):
        try:
            return json.dumps(masked(json.loads(value)))
        except (ValueError, RecursionError):
            return masked(value)
    return masked(value)
