# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an agent tells of itself: a file that it replaces, readable by its user only."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slapos_wendelin.files import write_atomically
from slapos_wendelin.node.work import Partition, Phase, Work

Document = dict[str, Any]

#: The agent's folder in the instance root, and the file in it.
FOLDER, FILE = ".agent", "state.json"


def folder_of(instance_root: Path) -> Path:
    """Return the folder of the agent of a computer."""
    return instance_root / FOLDER


def read_state(instance_root: Path) -> Document | None:
    """Return what the last agent of a computer has told, None when there was none.

    Raises PermissionError for who is not its user.
    """
    try:
        state: Document = json.loads((folder_of(instance_root) / FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return state


def write_state(instance_root: Path, state: Document) -> None:
    """Replace what is told."""
    path = folder_of(instance_root) / FILE
    write_atomically(path, json.dumps(state), secret=True, durable=False)


def describe(work: Work, now: float, held: str) -> Document:
    """Return partitions and software as the state tells them.

    :param now: the monotonic time.
    :param held: who keeps the agent from processing partitions; empty for nobody.
    """
    return {
        "partitions": [
            _partition(work, each, now, held) for _, each in sorted(work.partitions.items())
        ],
        "software": [
            {
                "url": each.url,
                "wanted": each.state,
                "state": "building" if work.is_building else "waits",
                "progress": None if each.progress is None else asdict(each.progress),
                "tries": each.tries,
                "error": each.error,
                "next_try": None if work.is_building else _time(work.build_not_before, now),
            }
            for each in work.software.values()
        ],
    }


def _partition(work: Work, partition: Partition, now: float, held: str) -> Document:
    """Return what is told of a partition."""
    return {
        "name": partition.name,
        "instance": partition.instance,
        "wanted": partition.state,
        "release": partition.release,
        "software": partition.software,
        "is_installed": partition.is_installed,
        "phase": str(partition.phase),
        "is_due_again": partition.is_due_again,
        "error": partition.error,
        "waits_for": _waits_for(work, partition, held),
        "next_try": _time(partition.not_before, now) if _is_waiting(partition) else None,
        "promises": partition.promises,
    }


def _is_waiting(partition: Partition) -> bool:
    """Return whether a partition is to be processed later."""
    return partition.phase in (Phase.QUEUED, Phase.RED, Phase.FAILED)


def _waits_for(work: Work, partition: Partition, held: str) -> str:
    """Return what a partition waits for and why; empty when it waits for nothing."""
    if partition.phase is Phase.CHECKING:
        return "its promises, to be green"
    if not _is_waiting(partition):
        return ""
    if work.is_awaited(partition.release):
        return "its release, which is not built yet"
    if partition.phase is Phase.RED:
        return "its promises, to be green"
    if partition.phase is Phase.FAILED:
        return "the next try, after a failure"
    return held or "a free processor"


def _time(monotonic: float, now: float) -> float:
    """Return a monotonic time as seconds since the epoch."""
    return round(time.time() + monotonic - now, 3)
