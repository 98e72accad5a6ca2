# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a wheel of this very package as it runs here, installed or from its sources."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from importlib import metadata
from pathlib import Path

import slapos_wendelin

#: The date of all files in the wheel: the same content gives the same wheel.
_DATE = (2020, 1, 1, 0, 0, 0)
_DISTRIBUTION = "slapos_wendelin"
#: The file that Python reads at each start (see setup.py), and the locked requirements.
_START_FILE = "slapos_wendelin.pth"
_LOCK = "toolkit.txt"


def lock_text() -> str:
    """Return the locked requirements of the toolkit."""
    package = Path(slapos_wendelin.__file__).parent
    installed = package / _LOCK
    source = package.parent / "requirements" / _LOCK
    return (installed if installed.exists() else source).read_text()


def make_wheel(folder: Path) -> Path:
    """Write the wheel into a folder and return its path."""
    version = metadata.version(_DISTRIBUTION)
    info = f"{_DISTRIBUTION}-{version}.dist-info"
    files = _package_files() | {
        f"{_DISTRIBUTION}/{_LOCK}": lock_text().encode(),
        _START_FILE: _start_line().encode(),
        f"{info}/METADATA": _told("METADATA"),
        f"{info}/entry_points.txt": _told("entry_points.txt"),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: slapos_wendelin\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{_DISTRIBUTION}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)
        record = f"{info}/RECORD"
        archive.writestr(zipfile.ZipInfo(record, _DATE), _record(files, record))
    return path


def _package_files() -> dict[str, bytes]:
    """Return the files of the package."""
    root = Path(slapos_wendelin.__file__).parent
    return {
        f"{_DISTRIBUTION}/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def _told(name: str) -> bytes:
    """Return a file of what is told of the installed package."""
    text = metadata.distribution(_DISTRIBUTION).read_text(name)
    if text is None:
        raise FileNotFoundError(name)
    return text.encode()


def _start_line() -> str:
    """Return the line that Python runs at each start."""
    return "import slapos_wendelin.slap_trust; slapos_wendelin.slap_trust.install()\n"


def _record(files: dict[str, bytes], own: str) -> str:
    """Return the list of files with their digests."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for name, content in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        writer.writerow([name, f"sha256={digest}", len(content)])
    writer.writerow([own, "", ""])
    return stream.getvalue()
