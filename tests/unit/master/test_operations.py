# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators ask of a cluster's NEO through the master, and what its keeper answers."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from database_servers import on_every_database
from keepers import Keeper, SecureCluster, plain_cluster
from master_cloud import Cloud
from master_process import MasterProcess
from secure_cloud import SecureCloud

from slapos_wendelin.master import operations
from slapos_wendelin.master.client import MasterAnswerError, NotFoundError
from slapos_wendelin.neo.channel import Channel
from slapos_wendelin.neo.errors import ChannelError

STATE = {
    "cluster": "RUNNING",
    "nodes": [{"type": "STORAGE", "id": "S1", "address": "10.0.0.1:1234", "state": "RUNNING"}],
    "cells": {"S1": "UU"},
}


@pytest.fixture
def keeper(cloud: Cloud) -> Keeper:
    return plain_cluster(cloud, "cluster")


@pytest.fixture(scope="module")
def two_clusters(secure_cloud: SecureCloud) -> tuple[SecureCluster, SecureCluster]:
    return SecureCluster(secure_cloud, "one"), SecureCluster(secure_cloud, "other")


def hurry(monkeypatch: pytest.MonkeyPatch, taken: float = 0.1, reported: float = 0.1) -> None:
    """Let keepers be late soon."""
    monkeypatch.setattr(operations, "TAKEN_WITHIN", taken)
    monkeypatch.setattr("slapos_wendelin.master.operation_reports.REPORTED_WITHIN", reported)


@on_every_database
def test_a_look_is_answered_by_the_keeper_and_its_nodes_have_their_names(
    cloud: Cloud, keeper: Keeper
):
    place = keeper.place
    admin = cloud.slap.registerComputerPartition(place.computer, place.partition)
    admin.setConnectionDict({"_": '{"address": "10.0.0.1:1234"}'})
    asked = cloud.client.look_at("cluster", "state", {})
    assert (asked["state"], asked["look"]) == ("waiting", True)
    (offered,) = keeper.ask()["operations"]
    assert (offered["operation"], offered["kind"]) == (asked["operation"], "state")
    keeper.say(asked["operation"], "done", result=STATE)
    answered = cloud.client.operation("cluster", asked["operation"])
    assert answered["state"] == "done"
    (node,) = answered["result"]["nodes"]
    assert node["name"] == "neo-admin"
    assert (node["computer"], node["datacenter"]) == ("computer-of-cluster", "paris")
    assert answered["result"]["cells"] == {"S1": "UU"}
    assert keeper.orders() == []


@on_every_database
def test_an_operation_is_taken_told_of_and_ends_and_history_keeps_who_asked(
    cloud: Cloud, keeper: Keeper
):
    number = cloud.client.operate("cluster", "tweak", {"without": ["S3", "S2", "S3"]})["operation"]
    assert cloud.client.operation("cluster", number)["arguments"] == {"without": ["S2", "S3"]}
    keeper.take(number)
    keeper.say(number, "running", progress={"phase": "copying"})
    running = cloud.client.operation("cluster", number)
    assert (running["state"], running["progress"]) == ("running", {"phase": "copying"})
    keeper.say(number, "done", result={"changed": True})
    assert [each["state"] for each in cloud.client.operations("cluster")] == ["done"]
    changes = [
        each
        for each in cloud.client.history(instance="cluster")["changes"]
        if each["kind"] == "operation"
    ]
    assert [each["after"]["state"] for each in changes] == ["waiting", "running", "done"]
    assert changes[0]["after"]["kind"] == "tweak"
    assert changes[0]["who"].startswith("operator/")


def test_a_keeper_that_waits_is_told_at_once(cloud: Cloud, keeper: Keeper):
    after = keeper.ask()["number"]
    told: list[int] = []
    thread = threading.Thread(target=lambda: told.append(keeper.ask(after, 30)["number"]))
    began = time.monotonic()
    thread.start()
    time.sleep(0.3)
    cloud.client.look_at("cluster", "state", {})
    thread.join()
    assert told[0] > after
    # Before the half minute for which it is ready to wait.
    assert time.monotonic() - began < 25


def test_a_connection_that_the_master_has_closed_meanwhile_costs_no_answer(
    cloud: Cloud, keeper: Keeper
):
    number = cloud.client.look_at("cluster", "state", {})["operation"]
    keeper.ask()
    connection = keeper.line._connection
    assert connection is not None
    assert connection.sock is not None
    connection.sock.shutdown(socket.SHUT_RDWR)
    keeper.say(number, "done", result=STATE)
    assert keeper.line._connection is not connection
    assert cloud.client.operation("cluster", number)["state"] == "done"


def test_another_master_of_the_same_database_tells_the_keeper_too(tmp_path: Path):
    with (
        MasterProcess(tmp_path / "master.sqlite") as first,
        MasterProcess(tmp_path / "master.sqlite") as second,
    ):
        keeper = plain_cluster(Cloud(first.url), "cluster")
        after = keeper.ask()["number"]
        thread = threading.Thread(target=lambda: told.append(keeper.ask(after, 30)))
        told: list[dict] = []
        thread.start()
        time.sleep(0.5)
        asked = Cloud(second.url).client.look_at("cluster", "state", {})
        thread.join(25)
        assert [each["operation"] for each in told[0]["operations"]] == [asked["operation"]]


def test_what_no_keeper_takes_has_failed_with_where_to_look(
    cloud: Cloud, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
):
    hurry(monkeypatch)
    number = cloud.client.operate("cluster", "tweak", {})["operation"]
    time.sleep(0.2)
    failed = cloud.client.operation("cluster", number)
    assert failed["state"] == "failed"
    assert "the keeper of the cluster did not take it" in failed["error"]
    assert "neo-keeper-runs" in failed["remedy"]
    assert keeper.orders() == []
    with pytest.raises(ChannelError, match="is over"):
        keeper.take(number)
    # Somebody else may ask for another thing now, which the keeper has time to take.
    hurry(monkeypatch, taken=60)
    again = cloud.client.operate("cluster", "balance", {})["operation"]
    assert [each["state"] for each in cloud.client.operations("cluster")] == ["failed", "waiting"]
    assert again > number


def test_a_keeper_that_falls_silent_has_failed_until_it_speaks_again(
    cloud: Cloud, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
):
    hurry(monkeypatch, taken=60)
    number = cloud.client.operate("cluster", "pack", {"before": 1.0})["operation"]
    keeper.take(number)
    time.sleep(0.2)
    assert "has told nothing of it" in cloud.client.operation("cluster", number)["error"]
    # As after a master that was away for long; but no other run begins what has failed.
    with pytest.raises(ChannelError, match="is over"):
        keeper.again().take(number)
    keeper.say(number, "done", result={"seconds": 9})
    assert cloud.client.operation("cluster", number)["state"] == "done"


def test_a_keeper_that_is_started_anew_takes_over_and_the_old_one_is_refused(
    cloud: Cloud, keeper: Keeper
):
    number = cloud.client.operate("cluster", "balance", {})["operation"]
    keeper.take(number)
    second = keeper.again()
    assert second.orders() == [number]
    second.take(number)
    with pytest.raises(ChannelError, match="another run of the keeper"):
        keeper.say(number, "done")
    second.say(number, "done", result={"tweaks": 0})
    # The answer may have been lost.
    second.say(number, "done", result={"tweaks": 0})


def test_two_operators_do_not_change_a_cluster_at_once(
    two_clusters: tuple[SecureCluster, SecureCluster], secure_cloud: SecureCloud
):
    one, _ = two_clusters
    bob = secure_cloud.user("bob", "operator")
    number = secure_cloud.operator.client.operate("one", "balance", {})["operation"]
    with pytest.raises(MasterAnswerError, match="alice has asked for balance already") as refused:
        bob.client.operate("one", "pack", {"before": 1.0})
    assert f"slapos cluster neo follow one {number}" in refused.value.remedy
    # The same again is the same operation, for whoever was interrupted.
    assert bob.client.operate("one", "balance", {})["operation"] == number
    # To look is free.
    bob.client.look_at("one", "state", {})
    bob.client.cancel_operation("one", number)
    with pytest.raises(ChannelError, match="end it: an operator wants that"):
        one.keeper.take(number)
    with pytest.raises(MasterAnswerError, match="is over"):
        bob.client.cancel_operation("one", number)


def test_a_cluster_neither_sees_nor_answers_what_is_asked_of_another(
    two_clusters: tuple[SecureCluster, SecureCluster], secure_cloud: SecureCloud
):
    one, other = two_clusters
    client = secure_cloud.operator.client
    number = client.look_at("one", "state", {})["operation"]
    assert number in one.keeper.orders()
    assert number not in other.keeper.orders()
    with pytest.raises(ChannelError, match="has no operation"):
        other.keeper.say(number, "done", result=STATE)
    with pytest.raises(NotFoundError, match="has no operation"):
        client.operation("other", number)
    # Nor does it in the name of the other one, or as a part that is no admin.
    liar = one.keeper_at(one.admin_place, other.admin)
    worker = one.keeper_at(one.worker_place, one.worker)
    for stranger, reason in ((liar, "may not call"), (worker, "only the keeper of a cluster")):
        with pytest.raises(ChannelError, match=reason):
            stranger.ask()
        with pytest.raises(ChannelError, match=reason):
            stranger.say(number, "done", result=STATE)
    assert client.operation("one", number)["state"] == "waiting"


@pytest.mark.usefixtures("two_clusters")
def test_a_viewer_looks_and_changes_nothing(secure_cloud: SecureCloud):
    viewer = secure_cloud.viewer.client
    looked = viewer.look_at("one", "tweak", {"without": []})
    assert viewer.operation("one", looked["operation"])["by"] == "viewer/victor"
    with pytest.raises(MasterAnswerError, match="may not call"):
        viewer.operate("one", "tweak", {})


def test_what_is_over_is_forgotten_in_time_and_looks_do_not_push_out_the_rest(
    cloud: Cloud, keeper: Keeper
):
    first = cloud.client.operate("cluster", "tweak", {})["operation"]
    keeper.take(first)
    keeper.say(first, "done")
    looks = []
    for _ in range(15):
        looks.append(cloud.client.look_at("cluster", "state", {})["operation"])
        keeper.say(looks[-1], "done", result=STATE)
    with pytest.raises(NotFoundError, match="has no operation"):
        cloud.client.operation("cluster", looks[0])
    assert cloud.client.operation("cluster", looks[-1])["state"] == "done"
    assert cloud.client.operation("cluster", first)["state"] == "done"


@pytest.mark.usefixtures("keeper")
def test_many_who_look_at_a_keeper_that_is_away_are_refused(cloud: Cloud):
    for _ in range(20):
        cloud.client.look_at("cluster", "state", {})
    with pytest.raises(MasterAnswerError, match="20 others look"):
        cloud.client.look_at("cluster", "state", {})


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("sing", {}, "kind is 'sing'"),
        ("tweak", {"without": "S3"}, "without is"),
        ("tweak", {"without": ["M1"]}, "without is"),
        ("tweak", {"all": True}, "the arguments of tweak"),
        ("pack", {}, "before is 0"),
        ("pack", {"before": True}, "before is True"),
        ("pack", {"before": 1e12}, "not in the future"),
    ],
)
@pytest.mark.usefixtures("keeper")
def test_what_cannot_be_asked_for_is_told(cloud: Cloud, kind: str, arguments: dict, message: str):
    with pytest.raises(MasterAnswerError) as refused:
        cloud.client.operate("cluster", kind, arguments)
    assert message in str(refused.value)


@pytest.mark.usefixtures("keeper")
def test_a_pack_of_everything_is_up_to_now_by_the_clock_of_the_master(cloud: Cloud):
    asked = cloud.client.operate("cluster", "pack", {"before": None})
    assert abs(asked["arguments"]["before"] - time.time()) < 20


def test_a_tree_without_a_neo_admin_has_nobody_to_ask(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.request("lonely")
    with pytest.raises(MasterAnswerError, match="has no instance of type neo-admin"):
        cloud.client.look_at("lonely", "state", {})


def test_an_answer_that_is_too_large_or_no_answer_is_refused(cloud: Cloud, keeper: Keeper):
    number = cloud.client.look_at("cluster", "state", {})["operation"]
    with pytest.raises(ChannelError, match="result is larger than"):
        keeper.say(number, "done", result={"cells": "U" * 2**21})
    with pytest.raises(ChannelError, match="state is"):
        keeper.say(number, "perhaps")
    with pytest.raises(ChannelError, match="result is no JSON object"):
        keeper.say(number, "done", result=[1])


@on_every_database
def test_what_was_asked_for_survives_a_killed_master_and_its_keeper_goes_on(location: Path | str):
    with MasterProcess(location) as master:
        cloud = Cloud(master.url)
        keeper = plain_cluster(cloud, "cluster")
        channel = Channel(keeper.place)
        channel.start()
        number = cloud.client.operate("cluster", "balance", {})["operation"]
        channel.wait(120)
        assert [(each.number, each.kind) for each in channel.take()] == [(number, "balance")]
        master.kill()
        channel.report(number, "running", progress={"copying": 2})
        channel.report(number, "done", result={"tweaks": 1})
        master.start()
        deadline = time.monotonic() + 120
        while cloud.client.operation("cluster", number)["state"] != "done":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert cloud.client.operation("cluster", number)["result"] == {"tweaks": 1}
        second = cloud.client.operate("cluster", "tweak", {})["operation"]
        channel.wait(120)
        assert [each.number for each in channel.take()] == [second]
        cloud.client.cancel_operation("cluster", second)
        while not channel.is_ended(second):
            assert time.monotonic() < deadline + 120
            time.sleep(0.1)
