# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that carries packets between the data centers of a lab.

Each data center has a TAP device. A packet that comes in at one is written to another after the
delay of the way between them, unless it is lost, too much, or the way is cut. Where nothing limits
a way, the kernel hands over up to 64 KiB at once.

It runs by itself (``python -I -S relay.py SOCKET``) and needs nothing but Python.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_CHECKSUM, _SEGMENTS_4, _SEGMENTS_6 = 0x01, 0x02, 0x04
#: Bytes before a frame that tell the kernel about its segments and checksum.
_HEADER = 10
#: The largest frame with its header, and how many are taken from one device in a row.
_FRAME, _BATCH = 65536 + 64, 64
#: Bytes that may wait for a limited way, at least, and seconds of its rate that may wait.
_QUEUE, _QUEUE_TIME = 65536, 0.2
_MESSAGE = 1 << 20


@dataclass
class Way:
    """One direction between two data centers."""

    #: Seconds that a packet takes.
    delay: float = 0.0
    #: The share of packets that is lost.
    loss: float = 0.0
    #: Bytes a second, 0 for as many as there are.
    rate: float = 0.0
    is_cut: bool = False
    packets: int = 0
    size: int = 0
    lost: int = 0
    #: When the last packet will have left, where there is a rate.
    free_at: float = 0.0

    def due(self, size: int, now: float) -> float | None:
        """Return when a packet of *size* bytes that comes in *now* arrives, None if it does not."""
        if self.is_cut or (self.loss and random.random() < self.loss):  # noqa: S311
            self.lost += 1
            return None
        if not self.rate:
            return now + self.delay
        waiting = (self.free_at - now) * self.rate
        if waiting > max(_QUEUE, self.rate * _QUEUE_TIME):
            self.lost += 1
            return None
        self.free_at = max(self.free_at, now) + size / self.rate
        return self.free_at + self.delay


@dataclass
class Port:
    """The TAP device of a data center."""

    name: str
    device: int
    is_cut: bool = False
    ways: dict[str, Way] = field(default_factory=dict)

    def take_single_packets(self) -> None:
        """Have the kernel split what it sends us where a way counts packets or bytes."""
        counts = any(way.loss or way.rate for way in self.ways.values())
        segments = 0 if counts else _SEGMENTS_4 | _SEGMENTS_6
        fcntl.ioctl(self.device, _TUNSETOFFLOAD, _CHECKSUM | segments)


class Relay:
    """Carries packets, and takes orders on a socket."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.ports: dict[str, Port] = {}
        self.by_device: dict[int, Port] = {}
        #: Where an Ethernet address was seen last.
        self.seen: dict[bytes, Port] = {}
        #: Packets on their way: when they arrive, a running number, way, target, frame.
        self.waiting: list[tuple[float, int, Way, Port, Port, bytes]] = []
        self.count = 0

    def run(self) -> None:
        """Work until the process is killed."""
        while True:
            timeout = None
            if self.waiting:
                timeout = max(self.waiting[0][0] - time.monotonic(), 0.0)
            # select counts microseconds where epoll counts milliseconds, and the devices are few.
            ready, _, _ = select.select([self.listener, *self.by_device], [], [], timeout)
            for each in ready:
                if isinstance(each, int):
                    self.take(self.by_device[each])
                else:
                    self.answer()
            self.deliver()

    def take(self, port: Port) -> None:
        """Take the packets that wait at a device."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_BATCH):
                self.route(port, os.read(port.device, _FRAME))

    def route(self, port: Port, frame: bytes) -> None:
        """Send a frame on its way, or on all ways when nobody knows where its target is."""
        target = frame[_HEADER : _HEADER + 6]
        self.seen[frame[_HEADER + 6 : _HEADER + 12]] = port
        known = None if target[0] & 1 else self.seen.get(target)
        if known is port:
            return
        now = time.monotonic()
        for other in (known,) if known else self.ports.values():
            if other is not port:
                self.send(port, other, frame, now)

    def send(self, port: Port, other: Port, frame: bytes, now: float) -> None:
        """Put a frame on the way to another data center."""
        way = port.ways[other.name]
        if port.is_cut or other.is_cut:
            way.lost += 1
            return
        due = way.due(len(frame) - _HEADER, now)
        if due is None:
            return
        if due <= now:
            self.arrive(way, other, frame)
            return
        self.count += 1
        heapq.heappush(self.waiting, (due, self.count, way, port, other, frame))

    def deliver(self) -> None:
        """Let the frames arrive whose time has come."""
        now = time.monotonic()
        while self.waiting and self.waiting[0][0] <= now:
            _, _, way, port, other, frame = heapq.heappop(self.waiting)
            if way.is_cut or port.is_cut or other.is_cut:
                way.lost += 1
            else:
                self.arrive(way, other, frame)

    @staticmethod
    def arrive(way: Way, other: Port, frame: bytes) -> None:
        """Hand a frame to the kernel; a device that is down or full loses it."""
        try:
            os.write(other.device, frame)
        except OSError:
            way.lost += 1
            return
        way.packets += 1
        way.size += len(frame) - _HEADER

    def answer(self) -> None:
        """Carry out one message of the lab."""
        connection, _ = self.listener.accept()
        with connection:
            connection.settimeout(5)
            with contextlib.suppress(OSError):
                reply = self.carry_out(json.loads(connection.recv(_MESSAGE)))
                connection.sendall(json.dumps(reply).encode())

    def carry_out(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what a message says; the answer is the state after it, or the error."""
        try:
            for name, device in message.get("add", {}).items():
                self.add(name, device)
            for name, is_cut in message.get("cut", {}).items():
                self.ports[name].is_cut = bool(is_cut)
            for change in message.get("ways", []):
                way = self.ports[change.pop("from")].ways[change.pop("to")]
                for key, value in change.items():
                    setattr(way, key, value)
        except (KeyError, OSError) as error:
            return {"error": f"{type(error).__name__}: {error}"}
        for port in self.ports.values():
            port.take_single_packets()
        return self.state()

    def add(self, name: str, device: str) -> None:
        """Open the TAP device of a new data center."""
        number = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(number, _TUNSETIFF, struct.pack("16sH22x", device.encode(), flags))
        port = Port(name, number)
        for other in self.ports.values():
            other.ways[name] = Way()
            port.ways[other.name] = Way()
        self.ports[name] = self.by_device[number] = port

    def state(self) -> dict[str, Any]:
        """Return all ports and ways."""
        return {
            "cut": {port.name: port.is_cut for port in self.ports.values()},
            "ways": [
                {
                    "from": port.name,
                    "to": other,
                    "delay": way.delay,
                    "loss": way.loss,
                    "rate": way.rate,
                    "is_cut": way.is_cut,
                    "packets": way.packets,
                    "bytes": way.size,
                    "lost": way.lost,
                }
                for port in self.ports.values()
                for other, way in port.ways.items()
            ],
        }


def main() -> None:
    """Listen at the socket that the command line names, and work."""
    path = Path(sys.argv[1])
    path.unlink(missing_ok=True)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        Relay(listener).run()


if __name__ == "__main__":
    main()
