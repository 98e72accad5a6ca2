# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos cluster history``, ``rollback``, ``catalog`` and ``product`` against a real master."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from master_cloud import Cloud
from our_slapos import Result, Slapos

from slapos_wendelin.cli.history import moment
from slapos_wendelin.errors import ParameterError

WENDELIN = Path(__file__).parents[3] / "software" / "wendelin" / "software.cfg"


@pytest.fixture
def slapos(cloud: Cloud, tmp_path: Path) -> Slapos:
    for name in ("paris", "tokyo", "virginia"):
        cloud.add_computer(name, 8, datacenter=name)
    cloud.client.put_product("wendelin-cluster", str(WENDELIN), version="1.0")
    return Slapos(tmp_path, cloud.url)


def numbers(history: Result) -> list[str]:
    return re.findall(r"^#([0-9]+) ", history.out, re.MULTILINE)


def test_history_tells_who_changed_what_from_what_to_what(slapos: Slapos):
    *_, history, as_json = slapos.all(
        ["request", "wendelin-cluster"],
        ["request", "wendelin-cluster", "--parameters", "storage-count=4"],
        ["request", "wendelin-cluster", "--state", "stopped"],
        ["cluster", "history", "wendelin-cluster"],
        ["cluster", "history", "wendelin-cluster", "--json", "--limit", "1"],
    )
    lines = history.out.splitlines()
    assert "operator/" in lines[0]
    assert lines[1:3] == [
        "  wendelin-cluster (default) on paris/slappart0 added",
        f"      release_url: {WENDELIN}",
    ]
    assert lines[4:6] == ["  wendelin-cluster changed", "      parameters.storage-count: 4"]
    assert lines[7:] == [
        "  wendelin-cluster changed",
        "      requested_state: started → stopped",
    ]
    (last,) = as_json.document["changes"]
    assert last["before"] == {"requested_state": "started", "state": "started"}
    assert as_json.document["more"]


def test_history_has_the_whole_tree_also_when_it_is_gone(cloud: Cloud, slapos: Slapos):
    root = cloud.request("mine")
    cloud.request_from(root, "storage", partition_parameter_kw={"size": "3"})
    cloud.request("mine", state="destroyed")
    history = slapos("cluster", "history", "mine")
    assert (
        "mine/storage (default) on tokyo/slappart0 added\n      parameters.size: 3" in history.out
    )
    assert "  mine removed\n" in history.out
    assert "  mine/storage removed\n" in history.out


def test_history_of_computers_releases_and_products(slapos: Slapos):
    slapos.all(["request", "wendelin-cluster"])
    computer, software, product, everything, nothing = slapos.all(
        ["cluster", "history", "--computer", "paris"],
        ["cluster", "history", "--software", str(WENDELIN)],
        ["cluster", "history", "--product", "wendelin-cluster"],
        ["cluster", "history", "--all", "--since", "1h"],
        ["cluster", "history", "--all", "--since", "2999-01-01"],
    )
    assert "computer paris added" in computer.out
    assert "partition paris/slappart7 added" in computer.out
    assert "tokyo" not in computer.out
    assert f"software paris {WENDELIN} added" in software.out
    assert "computer" not in software.out
    assert "version: 1.0" in product.out
    assert all(text in everything.out for text in ("computer tokyo", "product wendelin-cluster"))
    assert nothing.out == "No changes.\n"


def test_questions_about_history_that_cannot_be_answered(slapos: Slapos):
    results = slapos.all(
        ["cluster", "history"],
        ["cluster", "history", "mine"],
        ["cluster", "history", "mine", "--all"],
        ["cluster", "history", "--all", "--since", "yesterday"],
        ["cluster", "history", "--all", "--limit", "0"],
    )
    assert [each.status for each in results] == [1] * 5
    assert "it is not clear whose history" in results[0].err
    assert "there never was an instance 'mine'" in results[1].err
    assert "it is not clear whose history" in results[2].err
    assert "--since 'yesterday' is no time" in results[3].err


def test_moments():
    assert moment("90m", now=10_000.0) == 10_000 - 5400
    assert moment("2026-01-31T12:00+00:00", now=0.0) == 1769860800
    with pytest.raises(ParameterError, match="is no time"):
        moment("2x", now=0.0)


def test_a_rollback_requests_what_was_requested_then(cloud: Cloud, slapos: Slapos):
    *_, history = slapos.all(
        ["request", "wendelin-cluster", "--parameters", "worker-count=1"],
        ["request", "wendelin-cluster", "--parameters", "worker-count=5", "--state", "stopped"],
        ["cluster", "history", "wendelin-cluster"],
    )
    first = numbers(history)[0]
    before = cloud.client.instance("wendelin-cluster")
    unconfirmed, planned, done, again = slapos.all(
        ["cluster", "rollback", "wendelin-cluster", first],
        ["cluster", "rollback", "wendelin-cluster", f"#{first}", "--plan"],
        ["cluster", "rollback", "wendelin-cluster", first, "--yes"],
        ["cluster", "rollback", "wendelin-cluster", first, "--yes"],
    )
    assert unconfirmed.status == 1
    assert "parameters.worker-count: 5 → 1" in unconfirmed.out
    assert "add --yes" in unconfirmed.err
    assert planned.status == 2
    assert "Apply it with: slapos request --plan 2" in planned.out
    assert done.status == 0
    assert again.status == 0
    # The nodes have not run here, so they are still to come.
    assert "wendelin-cluster is requested as it was after change" in done.out
    after = cloud.client.instance("wendelin-cluster")
    assert (after["parameters"], after["state"]) == ({"worker-count": 1}, "started")
    assert (after["guid"], after["partition"]) == (before["guid"], before["partition"])


def test_a_destroyed_instance_comes_back_empty_and_says_so(cloud: Cloud, slapos: Slapos):
    *_, history = slapos.all(
        ["request", "wendelin-cluster", "--parameters", "worker-count=1"],
        ["request", "wendelin-cluster", "--state", "destroyed"],
        ["cluster", "history", "wendelin-cluster"],
    )
    result = slapos("cluster", "rollback", "wendelin-cluster", numbers(history)[0], "--yes")
    assert result.status == 0
    assert "(SOFTINST-1) was destroyed: its data is gone." in result.out
    instance = cloud.client.instance("wendelin-cluster")
    assert (instance["guid"], instance["parameters"]) == ("SOFTINST-2", {"worker-count": 1})


def test_a_rollback_refuses_what_the_release_does_not_allow(cloud: Cloud, slapos: Slapos):
    *_, history = slapos.all(
        ["request", "wendelin-cluster", "--parameters", "storage-count=3"],
        ["request", "wendelin-cluster", "--parameters", "storage-count=4"],
        ["cluster", "history", "wendelin-cluster"],
    )
    first = numbers(history)[0]
    shrunk, foreign, unknown = slapos.all(
        ["cluster", "rollback", "wendelin-cluster", first, "--yes"],
        ["cluster", "rollback", "wendelin-cluster", "1", "--yes"],
        ["cluster", "rollback", "wendelin-cluster", "99999", "--yes"],
    )
    assert [each.status for each in (shrunk, foreign, unknown)] == [1, 1, 1]
    assert "storage-count: cannot be lowered (it is 4, not 3)" in shrunk.err
    assert "change 1 is not of 'wendelin-cluster' but of computer paris" in foreign.err
    assert "there is no change 99999" in unknown.err
    assert cloud.client.instance("wendelin-cluster")["parameters"] == {"storage-count": 4}


def test_the_catalog_shows_products_and_the_versions_that_they_had(cloud: Cloud, slapos: Slapos):
    (slapos.folder / "defaults.yaml").write_text("worker-count: 1\n")
    (slapos.folder / "wrong.yaml").write_text("workers: 1\n")
    add = ["cluster", "product", "add", "wendelin-cluster", str(WENDELIN)]
    changed, same, wrong, missing, catalog, versions = slapos.all(
        [*add, "--release-version", "1.1", "--defaults-file", "defaults.yaml"],
        [*add, "--release-version", "1.1", "--defaults-file", "defaults.yaml"],
        [*add, "--defaults-file", "wrong.yaml"],
        ["cluster", "product", "add", "other", "/missing/software.cfg"],
        ["cluster", "catalog"],
        ["cluster", "catalog", "wendelin-cluster"],
    )
    assert "  version: 1.0 → 1.1\n" in changed.out
    assert "`slapos request wendelin-cluster` upgrades" in changed.out
    assert same.out == "wendelin-cluster is as it was.\n"
    assert "workers: unknown key" in wrong.err
    assert "/missing/software.cfg does not exist" in missing.err
    assert "wendelin-cluster │ 1.1" in catalog.out
    assert re.search(r"version +1\.1\n", versions.out)
    assert "version: 1.0 → 1.1" in versions.out
    assert cloud.client.product("wendelin-cluster")["defaults"] == {"worker-count": 1}


def test_a_product_that_is_removed_stays_in_history(slapos: Slapos):
    removed, again, catalog, versions, unknown = slapos.all(
        ["cluster", "product", "remove", "wendelin-cluster"],
        ["cluster", "product", "remove", "wendelin-cluster"],
        ["cluster", "catalog"],
        ["cluster", "catalog", "wendelin-cluster"],
        ["cluster", "catalog", "never"],
    )
    assert removed.out == f"wendelin-cluster is removed; it was {WENDELIN}.\n"
    assert "there is no product 'wendelin-cluster'" in again.err
    assert "The catalog is empty" in catalog.out
    assert "wendelin-cluster is not in the catalog any more." in versions.out
    assert "product wendelin-cluster removed" in versions.out
    assert [each.status for each in (removed, again, versions, unknown)] == [0, 1, 0, 1]
