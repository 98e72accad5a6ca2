# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a source archive from a mirror instead of its own URL."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

import requests

from slapos_wendelin.build_settings import MIRROR, VARIABLES, is_folder
from slapos_wendelin.buildout.errors import ProfileError
from slapos_wendelin.errors import reason
from slapos_wendelin.recipe.index import without_password

#: Folder or URL of a mirror: archives come from there and from nowhere else.
MIRROR_VARIABLE = VARIABLES[MIRROR]

#: Seconds without any byte after which a download is given up.
_TIMEOUT = 30
_BLOCK = 1024 * 1024
_MISSING = (404, 410)


def archive_name(url: str) -> str:
    """Return the file name of an archive."""
    return unquote(PurePosixPath(urlsplit(url).path).name)


def archive_place(url: str, sha256: str) -> str:
    """Return where a mirror has an archive, below its own folder or URL."""
    return f"sources/{sha256[:16]}/{archive_name(url)}"


def fetch_from_mirror(
    url: str, sha256: str, environment: Mapping[str, str]
) -> tuple[Path, bool] | None:
    """Return an archive of the mirror and whether it is a copy to be removed; None without one.

    Its checksum is still to be checked.

    :raises ProfileError: the mirror lacks it or cannot be read.
    """
    mirror = environment.get(MIRROR_VARIABLE, "").rstrip("/")
    if not mirror:
        return None
    place = archive_place(url, sha256)
    if not is_folder(mirror):
        return _download(f"{mirror}/{quote(place)}"), True
    path = Path(mirror, place)
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise _lacking(str(path)) from None
    except OSError as error:
        raise ProfileError(
            f"{path} cannot be read: {error.strerror}", "let the user who builds read the mirror"
        ) from error
    return path, False


def _download(url: str) -> Path:
    """Download a file; raises ProfileError."""
    shown = without_password(url)
    descriptor, name = tempfile.mkstemp(prefix="wendelin-source-")
    try:
        with (
            os.fdopen(descriptor, "wb") as stream,
            requests.get(url, stream=True, timeout=_TIMEOUT) as answer,
        ):
            answer.raise_for_status()
            for block in answer.iter_content(_BLOCK):
                stream.write(block)
    except BaseException as error:
        Path(name).unlink()
        if not isinstance(error, requests.RequestException):
            raise
        status = None if error.response is None else error.response.status_code
        if status in _MISSING:
            raise _lacking(shown) from None
        cause = f"it answers {status}" if status else reason(error)
        raise ProfileError(
            f"the mirror does not give {shown}: {cause}",
            f"let this machine reach it, or correct {MIRROR_VARIABLE}",
        ) from error
    return Path(name)


def _lacking(place: str) -> ProfileError:
    """Return the error of an archive that is not in the mirror."""
    return ProfileError(
        f"the mirror has no {place}",
        "fill it for this release where there is a network: ./wendelin mirror FOLDER",
    )
