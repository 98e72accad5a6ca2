# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that a crash leaves whole."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str, *, secret: bool = False) -> None:
    """Replace *path* with *text* so that a crash leaves the old or the new content, never half.

    What was written is there to stay when this returns.

    :param secret: let only the owner read it.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with os.fdopen(os.open(temporary, flags, 0o600 if secret else 0o666), "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
