# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON-RPC methods of the slap protocol, as the OpenAPI files of slapos.core describe them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError, best_match

from slapos_wendelin.master.checks import shown
from slapos_wendelin.master.errors import InvalidRequestError, MasterError

_FILES = ("json_rpc.json", "json_rpc_experimental.json")

#: How much of a schema's complaint is told, in characters.
_COMPLAINT_LIMIT = 300

_log = logging.getLogger(__name__)


class Method(NamedTuple):
    """What a method takes and what it answers."""

    path: str
    input: Draft7Validator
    output: Draft7Validator

    def check_input(self, sent: Any) -> None:
        """Refuse what the method does not take.

        :raises InvalidRequestError: names the place, the value and what is wrong with it.
        """
        error = best_match(self.input.iter_errors(sent))
        if error is not None:
            raise InvalidRequestError(
                f"{self.path.lstrip('/')}: {_complaint(error)}",
                f"send what {_FILES[0]} of slapos.core describes",
            )

    def check_output(self, answer: Any) -> None:
        """Refuse to send an answer that is not as described: it is a fault of the master.

        :raises MasterError: when it is not.
        """
        error = best_match(self.output.iter_errors(answer))
        if error is not None:
            _log.error("answer not as described path=%s error=%s", self.path, _complaint(error))
            raise MasterError(f"the master's answer to {self.path} is not as it should be")


@cache
def methods() -> Mapping[str, Method]:
    """Return every method by its path."""
    found = {}
    for name in _FILES:
        document = json.loads(resources.files("slapos.proxy").joinpath(name).read_bytes())
        for path, operations in document["paths"].items():
            operation = operations["post"]
            found[path] = Method(
                path,
                _validator(operation["requestBody"]),
                _validator(operation["responses"]["200"]),
            )
    return found


def _validator(body: Mapping[str, Any]) -> Draft7Validator:
    """Return what checks a body."""
    schema = body["content"]["application/json"]["schema"]
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def _complaint(error: ValidationError) -> str:
    """Return where a document is wrong, with what value, and why."""
    where = error.json_path.removeprefix("$").removeprefix(".") or "the document"
    text = error.message.replace(repr(error.instance), "it")
    if len(text) > _COMPLAINT_LIMIT:
        text = f"{text[: _COMPLAINT_LIMIT - 3]}..."
    return f"{where} is {shown(error.instance)}: {text}"
