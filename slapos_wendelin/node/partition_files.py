# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what a partition's user could have replaced by something that keeps its reader waiting."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

#: The largest file that is read, in bytes.
LARGEST = 1 << 20


def read_text(path: Path) -> str:
    """Return the text of a file; raises OSError when it is no ordinary file, or too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no ordinary file", str(path))
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise OSError(errno.EFBIG, "too large", str(path))
    return content.decode(errors="replace")
