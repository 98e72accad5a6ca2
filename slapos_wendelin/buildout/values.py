# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Option values that are more than text, as the SlapOS recipes exchange them.

A typed value is written as ``!py!`` and a Python literal, for example ``!py!{'port': 8080}``.
This is the form that slapos.cookbook's recipes expect from ``zc.buildout.buildout.dumps``. Only
literals are read back, so no value can run code.
"""

import ast
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

#: What a typed value begins with in a profile and in ``.installed.cfg``.
MAGIC = "!py!"

#: Characters to which buildout's own syntax gives a meaning: substitution, comments, defaults.
_ESCAPES = {ord(character): f"\\x{ord(character):02x}" for character in "$;#%"}

_SCALARS = (bool, int, float, str, bytes, type(None))


def normalise(value: object) -> object:
    """Return a copy of value made of plain dict, list, tuple, set and scalars only.

    :raises TypeError: the value, or one inside it, has no literal form.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"an option cannot hold the number {value!r}")
    for scalar in _SCALARS:
        if isinstance(value, scalar):
            return value if type(value) is scalar else _plain_scalar(value)
    if isinstance(value, Mapping):
        return {normalise(key): normalise(item) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return {normalise(item) for item in value}
    if isinstance(value, tuple):
        return tuple(normalise(item) for item in value)
    if isinstance(value, Sequence):
        return [normalise(item) for item in value]
    raise TypeError(f"an option cannot hold {value!r}, of type {type(value).__name__}")


def _plain_scalar(value: object) -> object:
    """Reduce an instance of a subclass of a scalar type to that type."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return "".join(value)
    if isinstance(value, bytes):
        return b"".join([value])
    raise TypeError(f"an option cannot hold {value!r}")


def dumps(value: object) -> str:
    """Write a value as text that a profile may hold.

    Equal sets are written alike, so that a part is not installed again for nothing.

    :raises TypeError: the value has no literal form.
    """
    return MAGIC + _literal(normalise(value)).translate(_ESCAPES)


def loads(text: str) -> object:
    """Read what :func:`dumps` has written.

    :raises ValueError: the text is not ``!py!`` and a Python literal.
    """
    if not text.startswith(MAGIC):
        raise ValueError(f"{text!r} does not begin with {MAGIC}")
    try:
        return ast.literal_eval(text.removeprefix(MAGIC).strip())
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"{text!r} does not hold a Python literal") from error


def embed(value: object) -> str:
    """Return the text of a value that is referenced in the middle of a longer text.

    :raises TypeError: the value is a container or nothing, whose text nobody could mean.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError(f"{value!r} cannot be part of a text")


def _literal(value: object) -> str:
    """Write a normalised value as an ASCII literal with a stable order of sets."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, set):
        return "{" + ", ".join(sorted(map(_literal, value))) + "}" if value else "set()"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, tuple):
        return "(" + "".join(f"{_literal(item)}, " for item in value).strip() + ")"
    return ascii(value)
