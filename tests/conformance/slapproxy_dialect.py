# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where slapproxy's tests speak slapproxy's dialect of the protocol, and what is put in its place.

Each adaptation notes when it changed something: slapproxy-differences.toml names the cases for
which that is right.
"""

from __future__ import annotations

import json
from typing import Any

import slapos.slap
from flask.testing import FlaskClient
from sqlalchemy import select

from slapos_wendelin.master.context import EXTENSION
from slapos_wendelin.master.models import Computer, Instance, Partition


class Adaptations:
    """The names of the adaptations that changed something."""

    def __init__(self) -> None:
        self.used: set[str] = set()


class Client(FlaskClient):
    """The test client of the master's application, with adaptations."""

    adaptations: Adaptations | None = None

    def open(self, path: Any, **options: Any) -> Any:
        """Send a request."""
        if self.adaptations is None:
            return super().open(path, **options)
        options = self._from_a_user(self._with_our_guid(options))
        answer = super().open(path, **options)
        self._raise_as_the_library(answer, path, options)
        self._refuse_as_slapproxy(answer, path)
        self._show_guids_of_slapproxy(answer)
        return answer

    def _raise_as_the_library(self, answer: Any, path: str, options: dict[str, Any]) -> None:
        """Raise what slapos.slap raises for status 404: slapproxy's own code raises it in place."""
        if options.get("method") == "GET" and answer.status_code == 404 and path[1:4] == "get":
            self._note("library")
            raise slapos.slap.NotFoundError(answer.text)

    def _refuse_as_slapproxy(self, answer: Any, path: str) -> None:
        """Refuse with status 404 for want of a place: the master says 503, which keeps its text."""
        if path == "/requestComputerPartition" and answer.status_code == 503:
            self._note("refusal")
            answer.status_code = 404

    def _from_a_user(self, options: dict[str, Any]) -> dict[str, Any]:
        """Request as a user when the requesting partition holds no instance, like slapproxy.

        The master refuses: a recipe that runs while its partition is freed would make a root.
        """
        form = options.get("data")
        if not isinstance(form, dict) or "partition_reference" not in form:
            return options
        name = form.get("computer_partition_id")
        if name is None or self._holds_an_instance(form["computer_id"], name):
            return options
        self._note("user")
        left = {key: value for key, value in form.items() if not key.startswith("computer_")}
        return options | {"data": left, "headers": None}

    def _holds_an_instance(self, computer: str, partition: str) -> bool:
        with self._database.reading() as session:
            found = session.scalar(
                select(Instance.id)
                .join(Partition)
                .join(Computer)
                .where(Computer.reference == computer, Partition.reference == partition)
            )
        return found is not None

    def _with_our_guid(self, options: dict[str, Any]) -> dict[str, Any]:
        """Put our guid in the place of slapproxy's, which is TITLE___TITLE_OF_ROOT___SHARED."""
        sent = options.get("json")
        if not isinstance(sent, dict) or sent.get("instance_guid", "").count("___") < 2:
            return options
        title, root, shared = sent["instance_guid"].split("___", 2)
        with self._database.reading() as session:
            for instance in session.scalars(
                select(Instance).where(Instance.reference == title, Instance.live.is_(True))
            ):
                if _root_title(instance) == root and instance.shared == (shared == "1"):
                    self._note("guid")
                    return options | {"json": sent | {"instance_guid": instance.guid}}
        return options

    def _show_guids_of_slapproxy(self, answer: Any) -> None:
        """Put slapproxy's guid in the place of ours."""
        if answer.mimetype != "application/json":
            return
        shown = json.loads(answer.data)
        if not isinstance(shown, dict):
            return
        with self._database.reading() as session:
            for each in (shown, *shown.get("result_list", ())):
                row = each.get("instance_guid", "").removeprefix("SOFTINST-")
                if row.isdigit():
                    instance = session.get_one(Instance, int(row))
                    parts = (instance.reference, _root_title(instance), str(int(instance.shared)))
                    each["instance_guid"] = "___".join(parts)
                    self._note("guid")
        answer.set_data(json.dumps(shown))

    @property
    def _database(self) -> Any:
        return self.application.extensions[EXTENSION].database

    def _note(self, name: str) -> None:
        assert self.adaptations is not None
        self.adaptations.used.add(name)


def _root_title(instance: Instance) -> str:
    """Return the name of the root of an instance's tree, empty for a root."""
    root = instance
    while root.requester is not None:
        root = root.requester
    return "" if root is instance else root.reference
