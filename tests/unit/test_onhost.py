# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent to hosts needs nothing but Python there; one session at a time holds a host."""

from __future__ import annotations

import ast
import fcntl
import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import slapos_wendelin
from slapos_wendelin.errors import CommandError
from slapos_wendelin.onhost import frames, processes, session
from slapos_wendelin.onhost.configuration import Computer
from slapos_wendelin.onhost.record import Record
from slapos_wendelin.onhost.session import BusyHostError, Session
from slapos_wendelin.remote.host_program import sent_modules

PACKAGE = Path(slapos_wendelin.__file__).parent


def test_what_is_sent_imports_the_standard_library_and_what_is_sent_only() -> None:
    modules = sent_modules()
    assert "slapos_wendelin.onhost.main" in modules
    for name, source in modules.items():
        for node in ast.walk(ast.parse(source)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for each in names:
                known = each.split(".")[0] in sys.stdlib_module_names or each in modules
                assert known, f"{name} imports {each}"


def test_a_frame_is_read_as_it_was_sent_and_half_a_frame_is_the_end() -> None:
    sent = frames.pack_message({"a": "ü"}) + frames.pack(frames.DATA, b"xyz")
    stream = io.BytesIO(sent + frames.pack(frames.DATA, b"lost")[:-1])
    first, second = frames.read(stream.read), frames.read(stream.read)
    assert first is not None
    assert first.message == {"a": "ü"}
    assert second == (frames.DATA, b"xyz")
    assert frames.read(stream.read) is None


class OtherSide:
    """Speaks with a session over pipes."""

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        self.drain = io.StringIO()
        self.ended = threading.Event()
        self.session = Session(
            os.fdopen(reading, "rb"), self.drain, exit_now=lambda _: self.ended.set()
        )

    def send(self, content: bytes) -> None:
        os.write(self._writing, content)

    def hang_up(self) -> None:
        os.close(self._writing)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Give signs of life meanwhile."""
        is_over = threading.Event()

        def beat() -> None:
            while not is_over.wait(0.05):
                self.send(frames.pack_message({"beat": True}))

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lock"
    monkeypatch.setattr(session, "LOCK", path)
    return path


def test_a_session_answers_and_takes_data_in_the_order_in_which_they_come() -> None:
    other = OtherSide()
    other.send(frames.pack_message({"beat": True}) + frames.pack_message({"token": "t"}))
    assert other.session.ask("token") == {"token": "t"}
    other.send(b"".join(frames.pack(frames.DATA, each) for each in (b"ab", b"c", b"")))
    assert other.session.data().read() == b"abc"
    assert '"need", "what": "token"' in other.drain.getvalue()


def test_who_holds_a_host_is_told_to_others_until_it_is_free(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "BEAT", 0.2)
    alice = OtherSide()
    first, second = alice.session, OtherSide().session
    with first.held("alice on desk"), alice.beating():
        with pytest.raises(BusyHostError, match="somebody else works on this host: alice on desk"):
            second.held("bob on sofa").__enter__()
        assert lock.exists()
    with second.held("bob on sofa"):
        assert lock.read_text().startswith("bob on sofa")
    assert not lock.exists()


def test_a_session_whose_other_side_is_gone_is_waited_for(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    # It ends while it is waited for.
    monkeypatch.setattr(session.time, "sleep", lambda _: os.close(holder))
    with OtherSide().session.held("bob"):
        assert lock.read_text().startswith("bob")


def test_a_session_ends_with_what_it_runs_when_the_other_side_hangs_up() -> None:
    other = OtherSide()
    command = ["sh", "-c", "exec sleep 1000"]
    failed: list[CommandError] = []

    def run() -> None:
        try:
            other.session.run(command, doing="waiting")
        except CommandError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while other.session.child is None:
        time.sleep(0.01)
    other.hang_up()
    assert other.ended.wait(60)
    thread.join(60)
    assert failed


def test_a_session_ends_when_the_other_side_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "BEAT", 0.01)
    monkeypatch.setattr(session, "SILENCE", 0.05)
    assert OtherSide().ended.wait(60)


def test_a_program_that_fails_is_told_with_its_last_lines() -> None:
    other = OtherSide()
    with pytest.raises(CommandError, match=r"trying failed: one \| two \| three"):
        other.session.run(["sh", "-c", "echo one; echo two; echo three; exit 4"], doing="trying")
    assert other.session.run(["cat"], doing="reading", given="text") == "text"


def test_a_record_outlives_its_process_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "joined.json"
    record = Record(path)
    record.note(computer="paris-1", addresses=None)
    record.note_step("toolkit", "abc")
    again = Record(path)
    assert again.values["computer"] == "paris-1"
    assert again.is_done("toolkit", "abc")
    assert not again.is_done("toolkit", "def")
    again.note_step("toolkit", None)
    assert not Record(path).is_done("toolkit", "abc")
    assert path.stat().st_mode & 0o777 == 0o600


def test_half_a_record_is_none(tmp_path: Path) -> None:
    path = tmp_path / "joined.json"
    path.write_text('{"computer": ')
    assert Record(path).values == {}


def test_each_partition_has_its_address(tmp_path: Path) -> None:
    master = "https://127.0.0.1:5000"
    shared = Computer("paris-1", master, tmp_path, 2, folder=tmp_path)
    definition = shared.texts()[tmp_path / "definition.cfg"]
    assert definition.count("address = 127.0.0.1/255.255.255.255") == 3
    block = Computer("paris-1", master, tmp_path, 2, "10.0.1.16/31", tmp_path)
    definition = block.texts()[tmp_path / "definition.cfg"]
    assert "address = 10.0.1.16/255.255.255.255\npathname = slappart0" in definition
    assert "address = 10.0.1.17/255.255.255.255\npathname = slappart1" in definition
    small = Computer("paris-1", master, tmp_path, 3, "10.0.1.16/31", tmp_path)
    with pytest.raises(CommandError, match="has 2 addresses, not 3"):
        small.texts()


def test_processes_of_a_folder_are_ended_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "inst"
    folder.mkdir()
    other = tmp_path / "instead"
    other.mkdir()
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(1000)"]
    with (
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as ours,
        subprocess.Popen(command, cwd=other, stdout=subprocess.PIPE) as theirs,
    ):
        try:
            for each in (ours, theirs):
                assert each.stdout is not None
                each.stdout.readline()
            processes.end_all(str(folder))
            assert ours.wait(30) != 0
            assert theirs.poll() is None
        finally:
            ours.kill()
            theirs.kill()


def test_a_host_that_calls_its_master_over_ipv6_has_addresses_of_ipv6(tmp_path: Path):
    computer = Computer(
        name="oslo",
        master="https://[::1]:5000",
        data=tmp_path / "data",
        partitions=2,
        block="fd00:1::10/127",
        folder=tmp_path / "etc",
    )
    definition = computer.texts()[tmp_path / "etc" / "definition.cfg"]
    mask = ":".join(["ffff"] * 8)
    assert re.findall("address = (.*)", definition) == [
        f"::1/{mask}",
        f"fd00:1::10/{mask}",
        f"fd00:1::11/{mask}",
    ]
