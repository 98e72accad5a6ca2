# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take from a cache all that runs on this system."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from slapos_wendelin.compiled.cache import Cache
from slapos_wendelin.compiled.entries import Note
from slapos_wendelin.recipe.build_platform import build_platform
from slapos_wendelin.recipe.shared import SharedPart


@dataclass(frozen=True)
class Pulled:
    """What became of a part of the cache."""

    note: Note
    #: ``taken``, ``is there``, or why it was left.
    outcome: str


def pull(
    cache: Cache, root: Path, keys: Sequence[Ed25519PublicKey], names: Sequence[str] = ()
) -> Iterator[Pulled]:
    """Put parts of a cache into a folder of shared parts, each whole or not at all.

    :param names: of parts; all unless given.
    :raises CacheError: one of them must not be used; nothing of it is left.
    """
    root.mkdir(parents=True, exist_ok=True)
    here = build_platform()
    for name, digest in cache.listed():
        if names and name not in names:
            continue
        note = cache.note(name, digest, keys)
        identity = json.loads(note.identity)
        if identity.get("platform") != here:
            yield Pulled(note, f"left: it is for {_described(identity.get('platform'))}")
            continue
        section = {"shared-part-list": str(root), "parts-directory": str(root)}
        part = SharedPart(section, name, shared=True, identity=identity)
        if part.complete:
            yield Pulled(note, "is there")
            continue
        part.build(lambda location, _lock, note=note: cache.take(note, location))
        yield Pulled(note, "taken")


def _described(platform: Mapping[str, Any] | None) -> str:
    """Return which system a part is for."""
    return (
        " ".join(str(value) for _, value in sorted((platform or {}).items())) or "no known system"
    )
