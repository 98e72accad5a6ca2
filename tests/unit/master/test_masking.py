# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Viewers see history and plans, but no secret in them."""

from __future__ import annotations

import json

import pytest
from secure_cloud import RELEASE, SecureCloud

from slapos_wendelin.master.masking import HIDDEN, is_secret, masked


@pytest.mark.parametrize(
    "key",
    ["password", "db-password", "PASSWORD", "apiKey", "api_key", "ssh.private", "authToken"],
)
def test_names_of_secrets(key: str):
    assert is_secret(key)


@pytest.mark.parametrize("key", ["monkey", "tokenizer", "keyboard", "passenger", "storage-count"])
def test_names_of_other_values(key: str):
    assert not is_secret(key)


def test_secrets_are_hidden_however_deep_they_are():
    document = {
        "parameters": {"users": [{"name": "alice", "password": "s3cret"}], "size": 3},
        "url": "https://alice:s3cret@example.org/",
        "_": json.dumps({"token": "s3cret"}),
        "password": "",
    }
    hidden = masked(document)
    assert "s3cret" not in json.dumps(hidden)
    assert hidden["parameters"] == {"users": [{"name": "alice", "password": HIDDEN}], "size": 3}
    assert hidden["url"] == f"https://alice:{HIDDEN}@example.org/"
    assert hidden["password"] == ""


def test_a_viewer_sees_history_and_plans_but_no_secret(secure_cloud: SecureCloud):
    cloud = secure_cloud
    cloud.add_computer("paris")
    cloud.request("cluster", partition_parameter_kw={"_": json.dumps({"password": "s3cret"})})
    planned = cloud.operator.client.make_plan(
        {
            "reference": "cluster",
            "release_url": RELEASE,
            "parameters": {"_": json.dumps({"password": "s3cret2"})},
        }
    )
    change = cloud.operator.client.history(instance="cluster")["changes"][0]["id"]
    for path in (
        "v1/history?instance=cluster",
        f"v1/history/{change}/request/cluster",
        f"v1/plans/{planned['plan']}",
    ):
        assert "s3cret" in cloud.operator.ask("GET", path).text
        shown = cloud.viewer.ask("GET", path).text
        assert "s3cret" not in shown
        assert HIDDEN in shown
