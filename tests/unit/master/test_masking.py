# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Viewers see history and plans, but no secret in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import g
from planning import carry_out, copy_of, plan, wanted

from slapos_wendelin.master.application import create_application
from slapos_wendelin.master.context import VIEWER, Caller
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.masking import HIDDEN, is_secret, masked
from slapos_wendelin.master.plans import PlannedRequest


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


@pytest.fixture
def database(three_computers: Path) -> Iterator[Database]:
    with copy_of(three_computers) as made:
        parameters = {"_": json.dumps({"password": "s3cret", "size": 3})}
        carry_out(made, PlannedRequest(wanted(parameters=parameters)))
        yield made


def answers(database: Database, kind: str | None) -> list[str]:
    """Return what the endpoints give to a caller of a kind; None for who calls from loopback."""
    application = create_application(database, is_plain=True)
    if kind is not None:

        @application.before_request
        def call_as_kind() -> None:
            g.caller = Caller(kind, "vera", "127.0.0.1")

    client = application.test_client()
    history = client.get("/v1/history?instance=cluster")
    change = history.json["changes"][0]["id"]
    others = [
        client.get(f"/v1/{path}") for path in (f"history/{change}/request/cluster", "plans/1")
    ]
    assert [each.status_code for each in (history, *others)] == [200, 200, 200]
    return [each.text for each in (history, *others)]


def test_an_operator_sees_secrets_and_a_viewer_does_not(database: Database):
    plan(database, PlannedRequest(wanted(parameters={"_": json.dumps({"password": "s3cret2"})})))
    assert all("s3cret" in text for text in answers(database, None))
    for text in answers(database, VIEWER):
        assert "s3cret" not in text
        assert HIDDEN in text
