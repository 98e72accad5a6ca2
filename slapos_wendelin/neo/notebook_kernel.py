# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel of a notebook of the cluster: ipykernel, without the ports that it opens.

They are at the loopback address, for whoever is on the machine. One is its debugger's, which is not
there then; by the other one it hears what forked processes print, here by a socket beside its own.
"""

import os
import sys
from typing import Any

import zmq
from zmq.eventloop.zmqstream import ZMQStream

modules: dict[str, Any] = sys.modules
# It cannot be imported then, and ipykernel goes on without.
modules["debugpy"] = None

from ipykernel import kernelapp  # noqa: E402


class NearIOPubThread(kernelapp.IOPubThread):
    """Sends what the kernel and its forks print."""

    def _setup_pipe_in(self) -> None:
        """Listen to forks."""
        self._pipe_uuid = os.urandom(16)
        own = self.socket.getsockopt(zmq.LAST_ENDPOINT)
        self._pipe_address = f"{own.rstrip(bytes(1)).decode()}f"
        heard = self.socket.context.socket(zmq.PULL)
        heard.linger = 0
        heard.bind(self._pipe_address)
        self._pipe_in = ZMQStream(heard, self.io_loop)
        self._pipe_in.on_recv(self._handle_pipe_msg)

    def _setup_pipe_out(self) -> tuple[Any, Any]:
        """Return what a fork prints to, and its context."""
        context = zmq.Context()
        told = context.socket(zmq.PUSH)
        told.linger = 3000
        told.connect(self._pipe_address)
        return context, told


kernelapp.IOPubThread = NearIOPubThread

if __name__ == "__main__":
    kernelapp.launch_new_instance()
