# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters of instances: defaults, validation and what may change after creation.

The command line checks a request before it is sent and the root instance checks what it was given,
both with the JSON schema that the release ships. Four keywords are ours: ``x-immutable`` marks a
value that stays as it was at creation, ``x-grows-only`` a number that may only grow. Beside an
``enum``, ``x-elsewhere`` says which other release has a value, ``x-cautions`` what a value means
that users must know before they choose it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import jsonschema
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from slapos_wendelin.errors import ParameterError

#: Reads the document at a URL that a schema refers to.
Read = Callable[[str], Any]

#: How much of a value an error shows, in characters.
_SHOWN_LENGTH = 80

#: What a keyword of a schema demands, as a user reads it.
_EXPECTATIONS = {
    "type": "must be of type {}",
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "enum": "must be one of {}",
    "const": "must be {}",
    "pattern": "must match {}",
    "format": "must be a valid {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "uniqueItems": "must have no item twice",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at one place of the parameters."""

    #: The keys and positions that lead to the value.
    path: tuple[str | int, ...]
    text: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path)) or 'parameters'}: {self.text}"


class FaultyParametersError(ParameterError):
    """Parameters have faults.

    :param faults: all of them, in the order of the document.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(map(str, self.faults)), "mend the parameters and request again")


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
        for key, description in _properties(schema).items()
        if "default" in description
    }
    return defaults | dict(parameters)


def check(
    schema: Mapping[str, Any],
    parameters: Mapping[str, Any],
    previous: Mapping[str, Any] | None = None,
    read: Read | None = None,
) -> dict[str, Any]:
    """Return *parameters* with defaults, or raise FaultyParametersError that names every fault.

    *previous* are the parameters of the instance as it stands, where there is one. *read* gives the
    documents that the schema refers to, where it does.
    """
    faults = _schema_faults(schema, parameters, read)
    if not faults:
        complete = with_defaults(schema, parameters)
        faults = _relation_faults(complete)
        if previous is not None:
            faults += _change_faults(schema, with_defaults(schema, previous), complete)
        if not faults:
            return complete
    raise FaultyParametersError(faults)


def _schema_faults(
    schema: Mapping[str, Any], parameters: Mapping[str, Any], read: Read | None
) -> list[Fault]:
    """Return the schema's complaints, in the order of their places."""
    try:
        errors = sorted(
            _validator(schema, read).iter_errors(parameters),
            key=lambda error: list(map(str, error.absolute_path)),
        )
    except (jsonschema.SchemaError, Unresolvable) as error:
        raise ParameterError(
            f"the release's schema is wrong: {' '.join(str(error).split())[:300]}",
            "tell those who made the release",
        ) from error
    return [fault for error in errors for fault in _faults(error)]


def _validator(schema: Mapping[str, Any], read: Read | None) -> Validator:
    """Return what validates, and reads what the schema refers to."""
    kind = validator_for(schema, default=jsonschema.Draft202012Validator)
    kind.check_schema(dict(schema))
    if read is None:
        return kind(schema)

    def retrieve(uri: str) -> Resource[Any]:
        return Resource.from_contents(read(uri), default_specification=DRAFT202012)

    return kind(schema, registry=Registry(retrieve=retrieve))


def _faults(error: jsonschema.ValidationError) -> list[Fault]:
    """Say where the value is, what it is and what is allowed."""
    path = tuple(error.absolute_path)
    keyword, expected = str(error.validator), error.validator_value
    if keyword == "additionalProperties" and isinstance(error.instance, Mapping):
        return _unknown_keys(error, path)
    if keyword == "required" and isinstance(error.instance, Mapping):
        missing = [key for key in _list(expected) if key not in error.instance]
        return [Fault(path, f"{key!r} is missing") for key in missing]
    if keyword in {"anyOf", "oneOf"} and error.context:
        alternatives = [fault for each in error.context for fault in _faults(each)]
        texts = [each.text if each.path == path else str(each) for each in alternatives]
        return [Fault(path, ", or ".join(dict.fromkeys(texts)))]
    if keyword not in _EXPECTATIONS:
        return [Fault(path, error.message)]
    allowed = ", ".join(map(str, _list(expected)))
    text = f"{_shown(error.instance)} {_EXPECTATIONS[keyword].format(allowed)}"
    if keyword == "enum":
        text += _suggestion(error.instance, _list(expected)) + _elsewhere(error)
    return [Fault(path, text)]


def _unknown_keys(error: jsonschema.ValidationError, path: tuple[str | int, ...]) -> list[Fault]:
    """Return a fault for each key that the schema does not know."""
    schema: Any = error.schema
    given: Any = error.instance
    allowed = sorted(schema.get("properties", {}))
    return [
        Fault(
            (*path, str(key)),
            f"unknown key{_suggestion(key, allowed)} (known are {', '.join(allowed)})",
        )
        for key in given
        if key not in allowed
    ]


def _suggestion(value: object, allowed: Iterable[object]) -> str:
    """Return the question whether something similar was meant, where there is something."""
    known = [each for each in allowed if isinstance(each, str)]
    close = get_close_matches(value, known, 1) if isinstance(value, str) else []
    return f", did you mean {close[0]}?" if close else ""


def _elsewhere(error: jsonschema.ValidationError) -> str:
    """Return which release has the value, where the schema says so."""
    schema: Any = error.schema
    places = schema.get("x-elsewhere", {})
    place = places.get(error.instance) if isinstance(error.instance, str) else None
    return f": this release lacks it, request {place}" if place else ""


def cautions(schema: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[str]:
    """Return what users must know of the values that they have chosen."""
    found = []
    for key, description in _properties(schema).items():
        value = parameters.get(key)
        text = description.get("x-cautions", {}).get(value) if isinstance(value, str) else None
        if text:
            found.append(f"{key} {value}: {text}")
    return found


def _relation_faults(parameters: Mapping[str, Any]) -> list[Fault]:
    """Check what a schema cannot say: how values bound each other."""
    return [*_replica_faults(parameters), *_engine_faults(parameters)]


def _engine_faults(parameters: Mapping[str, Any]) -> list[Fault]:
    """Refuse what only MariaDB can do of storages without it."""
    if parameters.get("storage-engine") != "sqlite":
        return []
    text = "needs storage-engine innodb or rocksdb, and it is sqlite"
    faults = []
    if parameters.get("durability", "safe") != "safe":
        faults.append(Fault(("durability",), f"{parameters['durability']} {text}"))
    faults += [Fault(("mariadb", name), text) for name in parameters.get("mariadb", {})]
    return faults


def _replica_faults(parameters: Mapping[str, Any]) -> list[Fault]:
    """Check that there are storages for all copies."""
    storages = parameters.get("storage-count")
    replicas = parameters.get("replicas")
    if storages is None or replicas is None or replicas < storages:
        return []
    return [
        Fault(
            ("replicas",),
            f"{replicas} needs storage-count {replicas + 1} or more, and it is {storages}",
        )
    ]


def _change_faults(
    schema: Mapping[str, Any], previous: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[Fault]:
    """Check that what is fixed at creation stays, and that nothing shrinks that only grows."""
    faults = []
    for key, description in _properties(schema).items():
        before, after = previous.get(key), wanted.get(key)
        if before == after or before is None:
            continue
        if description.get("x-immutable"):
            text = f"cannot be changed after creation (it is {before}, not {after})"
            faults.append(Fault((key,), text))
        if description.get("x-grows-only") and (after is None or after < before):
            faults.append(Fault((key,), f"cannot be lowered (it is {before}, not {after})"))
    return faults


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the descriptions of the parameters that a schema gives one by one."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    return {key: each for key, each in properties.items() if isinstance(each, Mapping)}


def _list(value: object) -> list[Any]:
    """Return a list as it is, anything else as the one item of a list."""
    return value if isinstance(value, list) else [value]


def _shown(value: object) -> str:
    """Return a value as an error shows it."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 3]}..."
