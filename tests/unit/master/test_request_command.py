# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos request`` and ``slapos cluster plan`` against a real master."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from master_cloud import Cloud
from our_slapos import Slapos

WENDELIN = Path(__file__).parents[3] / "software" / "wendelin" / "software.cfg"


@pytest.fixture
def slapos(cloud: Cloud, tmp_path: Path) -> Slapos:
    cloud.client.put_product("wendelin-cluster", str(WENDELIN), version="1.0")
    return Slapos(tmp_path, cloud.url)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Give a release whose instances only know themselves what they request."""
    path = tmp_path / "release" / "software.cfg"
    path.parent.mkdir()
    path.touch()
    description = {
        "serialisation": "json-in-xml",
        "software-type": {"default": {"request": "input.json"}, "small": {}},
    }
    path.with_name("software.cfg.json").write_text(json.dumps(description))
    schema = {"properties": {"size": {"type": "integer"}}, "additionalProperties": False}
    path.with_name("input.json").write_text(json.dumps(schema))
    return path


def add_data_centers(cloud: Cloud, partitions: int = 6) -> None:
    for name in ("paris", "tokyo", "virginia"):
        cloud.add_computer(name, partitions, datacenter=name)


def test_the_name_of_a_product_is_enough(cloud: Cloud, slapos: Slapos):
    add_data_centers(cloud)
    result = slapos("request", "wendelin-cluster")
    assert (result.status, result.err) == (0, "")
    assert result.out == "wendelin-cluster is requested, its state is started.\n"
    assert cloud.client.instance("wendelin-cluster")["release_url"] == str(WENDELIN)


def test_more_copies_than_data_centers_are_told_before_and_when_it_is_requested(
    cloud: Cloud, slapos: Slapos
):
    add_data_centers(cloud)
    cloud.add_computer("gone", 1, datacenter="atlantis")
    cloud.client.remove_computer("gone")
    wanted = ("wendelin-cluster", "--parameters", "storage-count=4", "replicas=3")
    said = "more than the data centers that they may be in (paris, tokyo, virginia)"
    assert said in slapos("cluster", "plan", *wanted).out
    planned = json.loads(slapos("cluster", "plan", *wanted, "--json").out)
    assert said in planned["cautions"][0]
    assert said in slapos("request", *wanted).out


def test_options_may_stand_before_and_between_the_names(cloud: Cloud, slapos: Slapos):
    add_data_centers(cloud)
    result = slapos("request", "mine", "--node", "datacenter=tokyo", "--state", "stopped",
                    "product.wendelin-cluster", "--parameters", "storage-count=4")  # fmt: skip
    assert result.status == 0, result.err
    instance = cloud.client.instance("mine")
    assert (instance["state"], instance["computer"]) == ("stopped", "tokyo")
    assert instance["parameters"] == {"storage-count": 4}


def test_what_is_not_said_stays_as_it_is(cloud: Cloud, slapos: Slapos, release: Path):
    add_data_centers(cloud)
    results = slapos.all(
        ["request", "mine", str(release), "--node", "datacenter=tokyo", "--type", "small"],
        ["request", "mine", "--parameters", "size=2"],
    )
    assert [each.status for each in results] == [0, 0], results
    assert "parameters.size: 2" in results[1].out
    instance = cloud.client.instance("mine")
    assert instance["sla"] == {"datacenter": "tokyo"}
    assert (instance["release_url"], instance["software_type"]) == (str(release), "small")


def test_defaults_of_the_product_stand_for_what_a_file_leaves_out(cloud: Cloud, slapos: Slapos):
    add_data_centers(cloud)
    cloud.client.put_product("wendelin-cluster", str(WENDELIN), defaults={"worker-count": 1})
    (slapos.folder / "cluster.yaml").write_text("storage-count: 4\n")
    slapos("request", "wendelin-cluster", "--parameters-file", "cluster.yaml")
    parameters = cloud.client.instance("wendelin-cluster")["parameters"]
    assert parameters == {"storage-count": 4, "worker-count": 1}


def test_a_plan_shows_every_node_with_its_computer_and_the_reason(cloud: Cloud, slapos: Slapos):
    add_data_centers(cloud)
    result = slapos("cluster", "plan", "wendelin-cluster")
    assert result.status == 2
    assert "+ wendelin-cluster (default) on paris/slappart0: 6 of 6 partitions" in result.out
    assert (
        "+ wendelin-cluster/neo-storage-1 (neo-storage) on tokyo/slappart2: data center tokyo has"
        " 0 of group wendelin-cluster/neo-storage"
    ) in result.out
    assert f"tokyo: {WENDELIN} is not built yet" in result.out
    assert "Instances: 12 to add, 0 to change, 0 to remove.\n" in result.out
    assert "Apply it with: slapos request --plan 1\n" in result.out
    assert cloud.client.instances() == []


def test_a_plan_is_applied_alone_and_once(cloud: Cloud, slapos: Slapos):
    add_data_centers(cloud)
    planned, beside, applied, again = slapos.all(
        ["cluster", "plan", "wendelin-cluster", "--json"],
        ["request", "other", "--plan", "1", "--type", "default"],
        ["request", "--plan", "1"],
        ["request", "--plan", "1"],
    )
    assert planned.document["plan"] == 1
    assert beside.status == 1
    assert "and --type, the instance 'other' is given too" in beside.err
    assert applied.out == "Plan 1 is applied: wendelin-cluster is requested.\n"
    assert again.status == 1
    assert "plan 1 was applied already" in again.err


def test_a_plan_is_refused_with_what_would_differ_now(cloud: Cloud, slapos: Slapos):
    add_data_centers(cloud)
    slapos("cluster", "plan", "mine", "wendelin-cluster", "--node", "datacenter=tokyo")
    cloud.request("other", filter_kw={"datacenter": "tokyo"})
    result = slapos("request", "--plan", "1")
    assert result.status == 1
    lines = result.err.splitlines()
    assert lines[0] == "slapos: plan 1 would do something else now than it showed"
    assert (
        "  instance mine: after.place is tokyo/slappart0 in the plan, tokyo/slappart1 now" in lines
    )
    assert "remedy: look at a new plan" in result.err
    assert [each["reference"] for each in cloud.client.instances()] == ["other"]


def test_exit_statuses_of_plans_and_dry_runs(cloud: Cloud, slapos: Slapos, release: Path):
    add_data_centers(cloud)
    results = slapos.all(
        ["request", "mine", str(release), "--dry-run"],
        ["request", "mine", str(release)],
        ["request", "mine", "--dry-run"],
        ["cluster", "plan", "mine", "--json"],
        ["cluster", "plan", "mine", "--parameters", "size=3"],
        ["cluster", "plan", "mine", "--parameters", "size=x"],
        ["cluster", "plan", "mine", "--sizes", "3"],
        ["cluster", "plan", "big", "wendelin-cluster", "--parameters", "storage-count=30"],
    )
    assert [each.status for each in results] == [2, 0, 0, 0, 2, 1, 1, 1]
    assert "Apply it" not in results[0].out
    assert "What it requests itself is known when it runs." in results[0].out
    assert results[2].out == "mine is as requested: nothing to do.\n"
    assert results[3].document["plan"] is None
    assert "~ mine\n    parameters.size: 3\n" in results[4].out
    assert "! big/neo-storage-" in results[7].out
    assert "paris: full (6 of 6 partitions in use)" in results[7].out
    assert "The plan is not kept" in results[7].out


def test_a_new_release_of_the_product_is_shown_as_an_upgrade(
    cloud: Cloud, slapos: Slapos, release: Path
):
    add_data_centers(cloud)
    cloud.client.put_product("mine", "https://example.org/old/software.cfg")
    slapos("request", "mine", "--unchecked")
    cloud.client.put_product("mine", str(release))
    planned, done = slapos.all(["cluster", "plan", "mine"], ["request", "mine"])
    line = f"release_url: https://example.org/old/software.cfg → {release}"
    assert line in planned.out
    assert line in done.out
    assert cloud.client.instance("mine")["release_url"] == str(release)


def test_every_fault_of_a_parameters_file_is_told_with_its_line(cloud: Cloud, slapos: Slapos):
    add_data_centers(cloud)
    (slapos.folder / "cluster.yaml").write_text(
        "storage-count: 0\n"
        "replica: 2\n"
        "data-centers:\n"
        "  - paris\n"
        "  - 'to kyo'\n"
        "overrides:\n"
        "  dask-worker-*:\n"
        "    threads: many\n"
    )
    result = slapos("request", "wendelin-cluster", "--parameters-file", "cluster.yaml")
    assert result.status == 1
    faults = result.err.splitlines()
    assert faults[0] == "slapos: wrong parameters:"
    assert "  cluster.yaml:1: storage-count: 0 must be at least 1" in faults
    assert '  cluster.yaml:5: data-centers.1: "to kyo" must match' in result.err
    assert "  cluster.yaml:2: replica: unknown key, did you mean replicas?" in result.err
    assert '  cluster.yaml:8: overrides.dask-worker-*.threads: "many" must be of type' in result.err
    assert cloud.client.instances() == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cluster.yaml", "storage-count: [", "cluster.yaml cannot be read: while parsing"),
        ("cluster.yaml", "replicas: 1\nreplicas: 2\n", "'replicas' is given twice, in lines 1 and"),
        ("cluster.json", '{"replicas": 1, "replicas": 2}', "'replicas' is given twice"),
        ("cluster.json", '{"storage-count":\n 0}', "cluster.json:1: storage-count: 0 must be"),
        ("cluster.yaml", "- 3\n", "cluster.yaml holds no parameters but '[3]'"),
        ("missing.yaml", None, "missing.yaml cannot be read: No such file"),
    ],
)
def test_a_wrong_parameters_file_is_refused(
    slapos: Slapos, name: str, text: str | None, message: str
):
    if text is not None:
        (slapos.folder / name).write_text(text)
    result = slapos("request", "wendelin-cluster", "--parameters-file", name)
    assert result.status == 1
    assert message in result.err


def test_wrong_requests_are_refused_with_a_remedy_and_change_nothing(
    cloud: Cloud, slapos: Slapos, release: Path
):
    cloud.add_computer("paris", 1, datacenter="paris")
    (release.parent / "broken.cfg").touch()
    (release.parent / "broken.cfg.json").write_text("{")
    wrong = {
        "request mine": "the master's catalog has no product 'mine'",
        "request mine /missing/software.cfg": "/missing/software.cfg does not exist",
        "request mine http://127.0.0.1:9/software.cfg": "cannot be read: Connection refused",
        f"request mine {release.parent}/broken.cfg": "broken.cfg.json is no JSON",
        f"request mine {release} --type smal": "no software type 'smal', did you mean small?",
        f"request mine {release} --parameters size=x": 'size: "x" must be of type integer',
        f"request mine {release} --parameters size": "'size' is no pair of key and value",
        f"request mine {release} --parameters size=[": "size: '[' cannot be read",
        f"request mine {release} --node datacenter=oslo": "asked for oslo",
        f"request mine {release} --node datacentre=oslo": "unknown SLA key 'datacentre'",
        "request mine --state destroyed": "there is no instance 'mine' to destroy",
        "request mine --state broken": "invalid choice: 'broken'",
        "request": "no instance is named",
        "request --plan 7": "there is no plan 7",
    }
    results = slapos.all(*(line.split() for line in wrong))
    for result, message in zip(results, wrong.values(), strict=True):
        assert result.status == 1, message
        assert message in result.err
        assert "Traceback" not in result.err
    assert cloud.client.instances() == []


def test_a_full_cloud_names_each_computer(cloud: Cloud, slapos: Slapos, release: Path):
    cloud.add_computer("paris", 1)
    _, refused = slapos.all(["request", "one", str(release)], ["request", "two", str(release)])
    assert refused.status == 1
    assert "no computer can host 'two': paris: full (1 of 1 partitions in use)" in refused.err
    assert "remedy: add a computer or partitions" in refused.err


def test_an_instance_is_destroyed_though_its_release_is_gone(
    cloud: Cloud, slapos: Slapos, release: Path
):
    cloud.add_computer("paris")
    slapos("request", "mine", release)
    release.unlink()
    release.with_name("software.cfg.json").unlink()
    results = slapos.all(*[["request", "mine", "--state", "destroyed"]] * 2)
    assert [each.status for each in results] == [0, 0]
    assert results[0].out.endswith("mine is requested, its state is destroyed.\n")


def test_a_release_of_texts_gets_texts(cloud: Cloud, slapos: Slapos, release: Path):
    cloud.add_computer("paris")
    slapos(
        *("request", "mine", release, "--type", "small"),
        *("--force-serialisation", "xml", "--parameters", "size=3", "name=a"),
    )
    partition = cloud.slap.registerComputer("paris").getComputerPartitionList()[0]
    sent = partition.getInstanceParameterDict()
    assert (sent["size"], sent["name"]) == ("3", "a")


def test_the_answer_for_programs_is_json(cloud: Cloud, slapos: Slapos, release: Path):
    cloud.add_computer("paris")
    cloud.partition(cloud.request("mine", release=str(release))).setConnectionDict({"url": "neo"})
    result = slapos("request", "mine", "--json")
    assert (result.document["connection"], result.document["computer"]) == ({"url": "neo"}, "paris")


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_shells_complete_our_commands(slapos: Slapos, shell: str):
    result = slapos("complete", "--shell", shell)
    assert result.status == 0
    for word in ("rollback", "history", "catalog", "tweak", "dry-run"):
        assert word in result.out
