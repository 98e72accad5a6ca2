# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is noted on a host about its joining: whoever repeats it goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slapos_wendelin.files import write_atomically

#: The folder of a computer's configuration, where slapos.core looks for it too.
CONFIGURATION = "/etc/opt/slapos"
#: Where it is noted what was done.
RECORD = f"{CONFIGURATION}/joined.json"


class Record:
    """What was done on this host; each change is on the disk before the next step begins."""

    def __init__(self, path: Path = Path(RECORD)) -> None:
        self.path = path
        try:
            self.values: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            self.values = {}

    def note(self, **values: Any) -> None:
        """Note values; None takes one away."""
        changed = self.values | values
        self.values = {name: value for name, value in changed.items() if value is not None}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps(self.values, indent=2, sort_keys=True), secret=True)

    def is_done(self, step: str, identity: str) -> bool:
        """Say whether a step was done in the same way."""
        done: dict[str, str] = self.values.get("steps", {})
        return done.get(step) == identity

    def note_step(self, step: str, identity: str | None) -> None:
        """Note that a step was done, and in which way; None that it is to be done again."""
        steps = {**self.values.get("steps", {}), step: identity}
        self.note(steps={name: value for name, value in steps.items() if value is not None})
