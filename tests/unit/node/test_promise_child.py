# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a promise's process leaves."""

from __future__ import annotations

import json
from pathlib import Path

from slapos.grid.promise import generic

from slapos_wendelin.node.promise_child import Promise, save_result


def test_a_result_spares_what_slapgrid_is_writing_of_the_same_promise(tmp_path: Path) -> None:
    promise = Promise(tmp_path, "runs.py", is_plugin=True)
    promise.result_file.parent.mkdir(parents=True)
    half = promise.result_file.with_name("runs.status.json.tmp")
    half.write_text('{"result"')
    item = generic.TestResult(problem=False, message="all is well")
    told = (str(promise.path), promise.name, promise.title, item)
    save_result(promise, generic.PromiseQueueResult(*told))
    assert half.read_text() == '{"result"'
    assert json.loads(promise.result_file.read_text())["result"]["message"] == "all is well"
