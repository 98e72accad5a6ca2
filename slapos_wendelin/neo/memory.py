# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory that a process has used, as Linux counts it (proc(5), `/proc/PID/status`)."""

from __future__ import annotations

from pathlib import Path

#: What glibc's malloc has to know in every process that reads blocks. Without it each block of
#: 2 MiB is mapped, filled page by page and unmapped again, which takes most of the time.
MALLOC_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(256 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    # Every thread would keep memory for blocks of its own.
    "MALLOC_ARENA_MAX": "2",
}


def reset_peak() -> None:
    """Begin a new measure of this process's peak."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Return the most memory that this process has had in RAM since `reset_peak`, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.removesuffix("kB")) * 1024
    message = "/proc/self/status has no VmHWM"
    raise OSError(message)
