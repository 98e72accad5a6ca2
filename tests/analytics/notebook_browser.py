# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user of a JupyterLab with a real browser: Firefox, told what to do by WebDriver BiDi.

    notebook_browser.py PAGE FILE_FOR_BROWSERS PASSWORD NOTEBOOK

imports the file and opens the page, before and after it trusts the authority in the file; then it
runs all cells of a notebook. It prints what becomes of each.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import websocket

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds for a page, or for what a notebook does.
PATIENCE = 240
#: How the browser tells where it listens.
_LISTENS = re.compile(r"WebDriver BiDi listening on (ws://\S+)")
#: Where to confirm that a kernel is to start anew.
_YES = ".jp-Dialog .jp-mod-accept"
#: Let it show the one certificate that it has without a question.
_PREFERENCES = """\
user_pref("security.default_personal_cert", "Select Automatically");
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("app.update.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
"""


class RefusedError(Exception):
    """The browser does not do what it was told."""


class Profile:
    """What a browser of one user remembers: in the beginning nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._database = ("-d", f"sql:{folder}")
        (folder / "user.js").write_text(_PREFERENCES)
        self._run("certutil", "-N", "--empty-password")

    def take(self, file: Path, password: str) -> None:
        """Import key, certificate and authority."""
        self._run("pk12util", "-i", str(file), "-W", password)

    def trust_authorities(self) -> None:
        """Let all authorities that were imported vouch for web pages."""
        listed = self._run("certutil", "-L")
        for nickname in re.findall(r"^(.*\S) +,,\s*$", listed, re.MULTILINE):
            self._run("certutil", "-M", "-n", nickname, "-t", "C,,")

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            [*command, *self._database], stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout


class Browser:
    """A browser with one window."""

    @classmethod
    @contextmanager
    def of(cls, profile: Profile) -> Iterator[Self]:
        """Run a browser until the context ends."""
        options = ("--headless", "--no-remote", "--remote-debugging-port", "0")
        command = ["firefox-esr", *options, "--profile", str(profile.folder)]
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as process:
            try:
                yield cls(process)
            finally:
                process.terminate()
                # It ends only when somebody reads what it says.
                process.communicate()

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        address = next(filter(None, map(_LISTENS.search, process.stderr)))[1]
        self._numbers = itertools.count(1)
        self._socket = websocket.create_connection(
            f"{address}/session", timeout=PATIENCE, suppress_origin=True
        )
        self.tell("session.new", capabilities={})
        self.window = self.tell("browsingContext.getTree")["contexts"][0]["context"]

    def tell(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result.

        :raises RefusedError: with the reason.
        """
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") != number:
                # It tells of events too.
                continue
            if answer["type"] == "error":
                raise RefusedError(answer["message"])
            return answer["result"]

    def open(self, address: str) -> str:
        """Open a page; return its title."""
        self.tell("browsingContext.navigate", context=self.window, url=address, wait="complete")
        return self.evaluate("document.title")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression on the page."""
        target = {"context": self.window}
        done = self.tell(
            "script.evaluate", expression=expression, target=target, awaitPromise=False
        )
        if done["type"] != "success":
            raise RefusedError(done["exceptionDetails"]["text"])
        return done["result"].get("value")

    def shows(self, selector: str) -> bool:
        """Return whether what a CSS selector finds can be seen."""
        return self.evaluate(f"!!document.querySelector({json.dumps(selector)})?.checkVisibility()")

    def click(self, selector: str) -> None:
        """Click on what a CSS selector finds, as soon as it is there to be seen."""
        eventually(lambda: self.shows(selector), selector)
        locator = {"type": "css", "value": selector}
        (node, *_) = self.tell("browsingContext.locateNodes", context=self.window, locator=locator)[
            "nodes"
        ]
        origin = {"type": "element", "element": {"sharedId": node["sharedId"]}}
        actions = [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": origin},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        pointer = {"type": "pointer", "id": "mouse", "actions": actions}
        self.tell("input.performActions", context=self.window, actions=[pointer])


def eventually(condition: Any, what: str) -> Any:
    """Wait for something; return what the condition does."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise RefusedError(f"not there in time: {what}")
        time.sleep(0.2)
    return found


def try_page(profile: Profile, page: str) -> str:
    """Return the title of a page, or why it is not shown."""
    with Browser.of(profile) as browser:
        try:
            return browser.open(page)
        except RefusedError as refused:
            return f"refused: {refused}"


def run_notebook(profile: Profile, page: str, notebook: str) -> str:
    """Run all cells of a notebook with a button; return what the last one prints."""
    last = "[...document.querySelectorAll('.jp-Notebook .jp-CodeCell')].at(-1)"
    with Browser.of(profile) as browser:
        # No other notebook that was open here before is shown again.
        browser.open(f"{page}/tree/{notebook}?reset")
        # Until the kernel is there, the button may do nothing.
        eventually(lambda: _is_asked(browser), "a question")
        browser.click(_YES)
        printed = f"{last}?.querySelector('.jp-OutputArea-output')?.innerText"
        return eventually(lambda: browser.evaluate(printed), "an output")


def _is_asked(browser: Browser) -> bool:
    """Click on the button that runs all, and return whether that is to be confirmed."""
    browser.click("[data-command='notebook:restart-run-all']")
    time.sleep(1)
    return browser.shows(_YES)


def main(page: str, file: str, password: str, notebook: str) -> None:
    """Print what becomes of everything."""
    with tempfile.TemporaryDirectory() as folder:
        profile = Profile(Path(folder))
        profile.take(Path(file), password)
        print("imported:", try_page(profile, page))
        profile.trust_authorities()
        print("trusted:", try_page(profile, page))
        print("printed:", run_notebook(profile, page, notebook))


if __name__ == "__main__":
    main(*sys.argv[1:])
