# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans and changes as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console

from slapos_wendelin.differences import MISSING, Difference, differences

Document = dict[str, Any]

#: The mark and the colour of each action.
_MARKS = {
    "added": ("+", "green"),
    "changed": ("~", "yellow"),
    "removed": ("-", "red"),
}

#: The values of a new instance that its line tells, or that say nothing yet.
_NOT_TOLD = frozenset(
    {
        *("reference", "requester", "shared", "provider", "connection", "reported_state", "error"),
        *("state", "destroyed_at", "place", "sla", "software_type"),
    }
)

#: How many nodes are told one by one before the rest are only counted.
_MOST_REFUSALS = 20


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output, or error, where texts come out as they are."""
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False, stderr=stderr)


def print_plan(document: Document, out: Console) -> None:
    """Print what a request would do."""
    effects = document["effects"]
    changes, later = effects["changes"], effects["later"]
    if not (changes or later or effects["refusals"]):
        out.print(f"{document['request']['reference']} is as requested: nothing to do.")
        return
    release_url = document["request"]["release_url"]
    for change in _instances(changes):
        _print_change(change, effects["reasons"], "", out)
    if later:
        out.print("When it runs, the instance will request:")
        for change in _instances(later):
            _print_change(change, effects["reasons"], release_url, out)
    if later is None and any(_instances(changes)):
        out.print("What it requests itself is known when it runs.")
    for refusal in effects["refusals"][:_MOST_REFUSALS]:
        out.print(f"! {refusal['name']}: {refusal['reason']}", style="red")
    _print_builds(effects["builds"], out)
    out.print(_summary([*changes, *(later or [])], effects["refusals"]))


def print_cautions(cautions: Iterable[str], out: Console) -> None:
    """Print what users must know of the values that they have chosen."""
    for caution in cautions:
        out.print(f"Caution: {caution}", style="yellow")


def _instances(changes: Iterable[Document]) -> Iterator[Document]:
    """Yield the changes of instances; those of software are told as builds."""
    return (change for change in changes if change["kind"] == "instance")


def action_of(change: Document) -> str:
    """Return what happens to an instance: one that shall go is removed, though its row stays."""
    if change["after"].get("state") == "destroyed":
        return "removed"
    return str(change["action"])


def title(change: Document) -> str:
    """Return what is done to what, in a few words; for a new instance with its type and place."""
    if change["kind"] != "instance":
        return f"{change['kind']} {change['name']}"
    if change["action"] != "added":
        return str(change["name"])
    after = change["after"]
    place = after.get("place") or after.get("provider")
    return f"{change['name']} ({after['software_type']}) on {place}"


def _print_change(
    change: Document, reasons: Mapping[str, str], release_url: str, out: Console
) -> None:
    """Print one change: a line, then a line for each value that differs.

    :param release_url: the release that a new instance has anyway.
    """
    mark, style = _MARKS[action_of(change)]
    line = f"{mark} {title(change)}"
    if change["action"] == "added" and change["name"] in reasons:
        line += f": {reasons[change['name']]}"
    out.print(line, style=style)
    for difference in value_differences(change):
        if difference.path != "release_url" or difference.after != release_url:
            out.print(f"    {difference}")


def value_differences(change: Document) -> list[Difference]:
    """Return the values that a change tells: none of what is removed, no empty ones of what is new.

    That a new instance is started goes without saying, and so does the state when it is as
    requested.
    """
    before, after = change["before"], change["after"]
    if action_of(change) == "removed":
        return []
    is_new = change["action"] == "added"
    hidden = set()
    if change["kind"] == "instance":
        hidden = {"state"} if "requested_state" in after or before.get("state") == "" else set()
        if is_new:
            hidden |= _NOT_TOLD
            hidden |= {"requested_state"} if after["requested_state"] == "started" else set()
    return [
        each
        for each in differences(before, after)
        if each.path.split(".")[0] not in hidden
        and not (is_new and each.after in (None, "", [], {}))
        and not (each.before is MISSING and each.after is None)
    ]


def _print_builds(builds: list[Document], out: Console) -> None:
    """Print the software that is not ready where it is needed."""
    if not builds:
        return
    out.print("Software to build first:")
    for build in builds:
        state = {"building": "is being built", "error": "could not be built, is tried again"}.get(
            build["state"], "is not built yet"
        )
        out.print(f"  {build['computer']}: {build['url']} {state}")


def _summary(changes: list[Document], refusals: list[Document]) -> str:
    """Return how many instances are concerned."""
    actions = [action_of(each) for each in _instances(changes)]
    counts = ", ".join(
        f"{actions.count(action)} to {verb}"
        for action, verb in (("added", "add"), ("changed", "change"), ("removed", "remove"))
    )
    text = f"Instances: {counts}."
    return f"{text} {len(refusals)} refused." if refusals else text
