# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a compiled part from the cache instead of compiling it."""

import logging
from collections.abc import Mapping
from pathlib import Path

from slapos_wendelin import build_settings
from slapos_wendelin.buildout.errors import ProfileError
from slapos_wendelin.compiled.cache import Cache
from slapos_wendelin.compiled.errors import CacheError, NotInCacheError, UnreachableError
from slapos_wendelin.compiled.keys import read_public_keys
from slapos_wendelin.compiled.places import open_place

#: Folder or URL of the cache, and the public keys (or files of them) that are trusted.
PLACE_VARIABLE = build_settings.VARIABLES[build_settings.CACHE]
KEYS_VARIABLE = build_settings.VARIABLES[build_settings.KEYS]


def restore(
    location: Path, compiler: str, environment: Mapping[str, str], log: logging.Logger
) -> bool:
    """Fill a part's folder from the cache; return whether the cache holds the part.

    :param location: the empty folder, ``NAME/DIGEST``.
    :param compiler: of this system, if there is one; what another has compiled is not taken.
    :raises ProfileError: what the cache holds must not be used.
    """
    place = environment.get(PLACE_VARIABLE)
    if not place:
        return False
    try:
        keys = read_public_keys(environment.get(KEYS_VARIABLE, "").split())
        cache = Cache(open_place(place))
        note = cache.note(location.parent.name, location.name, keys)
        if compiler and note.compiler and note.compiler != compiler:
            log.info("the cache has it from %s, and here is %s", note.compiler, compiler)
            return False
        cache.take(note, location)
    except NotInCacheError:
        log.info("the cache does not hold it")
        return False
    except UnreachableError as error:
        log.warning("%s; compiling without it", error.message)
        return False
    except CacheError as error:
        raise ProfileError(error.message, error.remedy) from error
    else:
        log.info("taken from the cache %s", cache.place)
        return True
