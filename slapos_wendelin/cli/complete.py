# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos complete`` with commands of three words: that of slapos.core fails of them in fish."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from slapos.cli import complete

#: What the groups of commands of three words are for, by their first two.
_GROUPS = {"cluster neo": "look at the NEO of a cluster, and operate it"}

#: Words up to which slapos.core completes.
_WORDS = 2


class CompleteCommand(complete.CompleteCommand):
    """print what completes our commands in a shell."""

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Print it."""
        if parsed_args.shell != "fish":
            return int(super().take_action(parsed_args) or 0)
        commands: dict[str, Any] = self.app.command_manager.commands
        long = {name: commands[name] for name in commands if len(name.split()) > _WORDS}
        for name in long:
            del commands[name]
        try:
            super().take_action(parsed_args)
        finally:
            commands.update(long)
        for group in sorted({name.rpartition(" ")[0] for name in long}):
            self.app.stdout.write(f"\n## commands {group}\n")
            for line in self._lines(group, sorted(commands)):
                self.app.stdout.write(f"complete -c {self.app.NAME} {line}\n")
        return 0

    def _lines(self, group: str, commands: list[str]) -> Iterator[str]:
        """Yield what completes the last word of a group's name, and the commands in it."""
        base, last = group.split()
        others = {name.split()[1] for name in commands if name.startswith(f"{base} ")}
        yield f"-f -n {_seen(base, without=others)} -a {last} -d {_quoted(_GROUPS[group])}"
        names = [name for name in commands if name.startswith(f"{group} ")]
        words = {name.rpartition(" ")[2] for name in names}
        for name in names:
            command = self.app.command_manager.find_command(name.split())[0](self.app, None)
            word = name.rpartition(" ")[2]
            about = _quoted(command.get_description().splitlines()[0])
            yield f"-f -n {_seen(base, last, without=words)} -a {word} -d {about}"
            for action in command.get_parser(name)._get_optional_actions():  # noqa: SLF001 - as cliff
                yield f"-n {_seen(base, last, word)} {_option(action)}"


def _option(action: argparse.Action) -> str:
    """Return what completes an option: its names, whether it wants a value, what it is for."""
    names = [
        f"-l {text[2:]}" if text.startswith("--") else f"-s {text[1:]}"
        for text in action.option_strings
    ]
    value = ["-r"] if action.nargs != 0 else []
    return " ".join([*names, *value, "-d", _quoted(str(action.help or ""))])


def _seen(*words: str, without: set[str] | None = None) -> str:
    """Return the condition that these words are on the line, and none of the others."""
    seen = [f"__fish_seen_subcommand_from {word}" for word in words]
    if without:
        seen.append(f"not __fish_seen_subcommand_from {' '.join(sorted(without))}")
    return _quoted("; and ".join(seen))


def _quoted(text: str) -> str:
    """Quote a text for fish."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
