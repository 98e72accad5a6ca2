# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build from a mirror: recipes take archives from it, and Python packages come from its index."""

from __future__ import annotations

from pathlib import Path

import requests

from slapos_wendelin import build_settings
from slapos_wendelin.errors import reason
from slapos_wendelin.mirror.errors import MirrorError
from slapos_wendelin.mirror.filling import TIMEOUT
from slapos_wendelin.mirror.folder import CATALOG, read_catalog
from slapos_wendelin.recipe.index import without_password


class Mirror:
    """A mirror to build from: a folder, or the URL that it is served at."""

    def __init__(self, place: str) -> None:
        self.is_folder = build_settings.is_folder(place)
        self.place = str(Path(place).absolute()) if self.is_folder else place.rstrip("/")
        if not self.is_folder and not place.startswith(("http://", "https://")):
            raise MirrorError(
                f"the mirror {place} is neither a folder nor a URL of http or https",
                "name the folder that ./wendelin mirror has filled, or where it is served",
            )

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables by which builds take all sources from it."""
        return build_settings.environment({build_settings.MIRROR: self.place})

    def check(self) -> None:
        """Raise MirrorError for what is no mirror, or cannot be read."""
        read_catalog(self._catalog(), f"{without_password(self.place)}/{CATALOG}")

    def _catalog(self) -> str:
        """Return the text of the catalog."""
        if self.is_folder:
            try:
                return Path(self.place, CATALOG).read_text()
            except OSError as error:
                raise MirrorError(
                    f"{self.place} is no mirror: {CATALOG} cannot be read ({error.strerror})",
                    "fill it first: ./wendelin mirror FOLDER",
                ) from error
        shown = without_password(f"{self.place}/{CATALOG}")
        try:
            answer = requests.get(f"{self.place}/{CATALOG}", timeout=TIMEOUT)
        except requests.RequestException as error:
            raise MirrorError(
                f"the mirror cannot be reached at {shown}: {reason(error)}", "correct its URL"
            ) from error
        if not answer.ok:
            raise MirrorError(
                f"the mirror answers {answer.status_code} for {shown}", "correct its URL"
            )
        return answer.text
