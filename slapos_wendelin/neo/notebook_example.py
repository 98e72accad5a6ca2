# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first notebook, which is there at the first start."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import nbformat
from nbformat import v4

if TYPE_CHECKING:
    from pathlib import Path

NAME = "arrays.ipynb"

TEXT = """\
# Arrays in NEO

The variables `WENDELIN_ZODB_URI` and `WENDELIN_DASK_SCHEDULER` lead to this cluster."""

MAKE = """\
import os

from slapos_wendelin.neo import client, ndarray

uri = os.environ["WENDELIN_ZODB_URI"]


def make(root):
    root.pop("example", None)
    array = ndarray.create(root, "example", shape=(1_000_000, 4))
    array[:] = 0.5


client.run(uri, make)"""

COMPUTE = """\
from slapos_wendelin.neo.reference import ArrayReference, dask_array
from slapos_wendelin.neo.workers import Workers

with Workers(os.environ["WENDELIN_DASK_SCHEDULER"]) as workers:
    total = dask_array(ArrayReference(uri, "example")).sum()
    print(workers.client.compute(total).result())"""


def write_example(folder: Path) -> None:
    """Write it, unless there is something of this name."""
    cells = [v4.new_markdown_cell(TEXT), v4.new_code_cell(MAKE), v4.new_code_cell(COMPUTE)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    with suppress(FileExistsError), (folder / NAME).open("x") as stream:
        nbformat.write(notebook, stream)
