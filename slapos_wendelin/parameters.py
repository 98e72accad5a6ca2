# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters of instances: defaults, validation and what may change after creation.

The command line checks a request before it is sent and the root instance checks what it was given,
both with the JSON schema (2020-12) that the release ships. Two keywords are ours: ``x-immutable``
marks a value that stays as it was at creation, ``x-grows-only`` a number that may only grow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

from slapos_wendelin.errors import ParameterError


def load_schema(path: Path) -> dict[str, Any]:
    """Read the JSON schema at *path*; raises ParameterError when there is none."""
    try:
        schema: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"the schema {path} cannot be read: {error}", "use a complete copy of the release"
        ) from error
    return schema


def with_defaults(schema: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return *parameters* with the schema's default for each key that is left out."""
    defaults = {
        key: description["default"]
        for key, description in schema["properties"].items()
        if "default" in description
    }
    return defaults | dict(parameters)


def check(
    schema: Mapping[str, Any],
    parameters: Mapping[str, Any],
    previous: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return *parameters* with defaults, or raise ParameterError that names every fault.

    *previous* are the parameters of the instance as it stands, where there is one.
    """
    faults = [_describe(error) for error in _schema_errors(schema, parameters)]
    if not faults:
        complete = with_defaults(schema, parameters)
        faults = _relation_faults(complete)
        if previous is not None:
            faults += _change_faults(schema, with_defaults(schema, previous), complete)
        if not faults:
            return complete
    raise ParameterError("; ".join(faults), "mend the parameters and request again")


def _schema_errors(
    schema: Mapping[str, Any], parameters: Mapping[str, Any]
) -> list[jsonschema.ValidationError]:
    """Return the schema's complaints, in the order of the document."""
    validator = jsonschema.Draft202012Validator(schema)
    return sorted(validator.iter_errors(parameters), key=lambda error: list(map(str, error.path)))


def _describe(error: jsonschema.ValidationError) -> str:
    """Say in one clause where the value is, what it is and what is allowed."""
    place = ".".join(map(str, error.path)) or "parameters"
    value = json.dumps(error.instance, default=str)
    if error.validator == "additionalProperties":
        schema: Any = error.schema
        instance: Any = error.instance
        allowed = sorted(schema.get("properties", {}))
        unknown = sorted(set(instance) - set(allowed))
        return f"{place}: unknown key {', '.join(unknown)}; known are {', '.join(allowed)}"
    expectation = {
        "type": "must be of type {}",
        "minimum": "must be at least {}",
        "maximum": "must be at most {}",
        "enum": "must be one of {}",
        "pattern": "must match {}",
    }.get(str(error.validator))
    if expectation is None:
        return f"{place}: {error.message}"
    allowed_value = error.validator_value
    if isinstance(allowed_value, list):
        allowed_value = ", ".join(map(str, allowed_value))
    return f"{place}: {value} {expectation.format(allowed_value)}"


def _relation_faults(parameters: Mapping[str, Any]) -> list[str]:
    """Check what a schema cannot say: how values bound each other."""
    storages = parameters.get("storage-count")
    replicas = parameters.get("replicas")
    if storages is None or replicas is None or replicas < storages:
        return []
    return [
        f"replicas: {replicas} needs storage-count {replicas + 1} or more, and it is {storages}",
    ]


def _change_faults(
    schema: Mapping[str, Any], previous: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[str]:
    """Check that what is fixed at creation stays, and that nothing shrinks that only grows."""
    faults = []
    for key, description in schema["properties"].items():
        before, after = previous.get(key), wanted.get(key)
        if before == after or before is None:
            continue
        if description.get("x-immutable"):
            faults.append(f"{key}: cannot be changed after creation (it is {before}, not {after})")
        if description.get("x-grows-only") and after < before:
            faults.append(f"{key}: cannot be lowered (it is {before}, not {after})")
    return faults
