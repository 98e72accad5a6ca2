# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of parameters, which knows the line of each value."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from slapos.cli.request import getParametersFromFile
from slapos.util import SoftwareReleaseSerialisation

from slapos_wendelin.errors import ParameterError


class ParametersFile:
    """Parameters in YAML, JSON or the XML of SlapOS, by the end of the file's name."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        :raises ParameterError: when it cannot be read, or holds no parameters.
        """
        self.path = path
        self._root: yaml.Node | None = None
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ParameterError(
                f"the parameters file {path} cannot be read: "
                f"{getattr(error, 'strerror', None) or error}",
                "name a file in YAML or JSON with --parameters-file",
            ) from error
        try:
            values = self._parse(text)
        except (ValueError, yaml.YAMLError, SyntaxError, RecursionError) as error:
            raise ParameterError(
                f"{path} cannot be read: {' '.join(str(error).split())}",
                "write it as YAML or JSON",
            ) from error
        if values is None:
            values = {}
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise ParameterError(
                f"{path} holds no parameters but {str(values)[:80]!r}",
                "write it as a mapping of names to values",
            )
        self.values: dict[str, Any] = values

    def place(self, keys: Sequence[str | int]) -> str:
        """Return the file, and the line of the value that the keys lead to where it is known."""
        node = self._root
        line = None
        for key in keys:
            key_node, node = _step(node, key)
            if key_node is None:
                break
            line = key_node.start_mark.line + 1
        return str(self.path) if line is None else f"{self.path}:{line}"

    def _parse(self, text: str) -> object:
        """Return the values of the text."""
        if self.path.suffix == ".xml":
            with self.path.open() as stream:
                return getParametersFromFile(stream, SoftwareReleaseSerialisation.Xml)
        if self.path.suffix in {".yaml", ".yml"}:
            self._root = yaml.compose(text, yaml.SafeLoader)
            _refuse_repeated_keys(self._root)
            return yaml.safe_load(text)
        values = json.loads(text, object_pairs_hook=_object)
        try:
            self._root = yaml.compose(text, yaml.SafeLoader)
        except yaml.YAMLError:
            self._root = None  # JSON that YAML cannot read, with tabs: lines stay unknown
        return values


def _step(node: yaml.Node | None, key: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    """Return the nodes of a key and its value, or of an item twice."""
    if isinstance(node, yaml.MappingNode):
        for key_node, value in node.value:
            if key_node.value == str(key):
                return key_node, value
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key]
    return None, None


def _refuse_repeated_keys(node: yaml.Node | None) -> None:
    """Refuse a key that is given twice: the first value would be lost in silence."""
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key_node, value in node.value:
            line = key_node.start_mark.line + 1
            if key_node.value in lines and key_node.tag != "tag:yaml.org,2002:merge":
                before = lines[key_node.value]
                raise ValueError(f"{key_node.value!r} is given twice, in lines {before} and {line}")
            lines[key_node.value] = line
            _refuse_repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, in which no key may be given twice."""
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{repeated!r} is given twice")
    return values
