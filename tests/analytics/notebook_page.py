# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user of a JupyterLab, by its REST interface and the websockets of kernels.

    notebook_page.py PAGE FOLDER_OF_CERTIFICATE NOTEBOOK

runs the cells of a notebook there and prints what they print; with the outputs it is saved.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import websocket

#: Seconds for an answer.
PATIENCE = 240


def context_of(folder: Path) -> ssl.SSLContext:
    """Return the context of connections with the certificate in a folder."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(folder / "ca.pem")
    context.load_cert_chain(folder / "identity.pem")
    return context


class NotebookPage:
    """A page, with one connection that stays open."""

    def __init__(self, page: str, context: ssl.SSLContext | None, token: str = "") -> None:
        parts = urlsplit(page)
        assert parts.hostname
        self.context, self.place = context, parts.netloc
        if context:
            self.connection = http.client.HTTPSConnection(
                parts.hostname, parts.port, context=context, timeout=PATIENCE
            )
        else:
            self.connection = http.client.HTTPConnection(
                parts.hostname, parts.port, timeout=PATIENCE
            )
        self.headers = {"Authorization": f"token {token}"} if token else {}
        if not token:
            # Whoever changes something has to send back what the page has said.
            cookie = self.get("/lab").headers["Set-Cookie"].partition(";")[0]
            self.headers = {"Cookie": cookie, "X-XSRFToken": cookie.partition("=")[2]}

    def ask(self, method: str, path: str, document: Any = None) -> http.client.HTTPResponse:
        """Return an answer, whatever it is; its body is read with ``read``."""
        body = None if document is None else json.dumps(document)
        self.connection.request(method, path, body, self.headers)
        return self.connection.getresponse()

    def get(self, path: str) -> http.client.HTTPResponse:
        """Return a good answer, of which the body is read."""
        answer = self.ask("GET", path)
        answer.read()
        assert answer.status == 200, f"{path}: {answer.status}"
        return answer

    def tell(self, method: str, path: str, document: Any = None) -> Any:
        """Return the document of a good answer."""
        answer = self.ask(method, path, document)
        text = answer.read()
        assert answer.status in (200, 201, 204), f"{path}: {answer.status} {text!r}"
        return json.loads(text) if text else None

    def start_kernel(self) -> Kernel:
        """Start a kernel, as for a notebook that is not in a folder, and connect to it."""
        wanted = {"name": "python3", "path": "any.ipynb"}
        return Kernel(self, self.tell("POST", "/api/kernels", wanted)["id"])

    def run_notebook(self, name: str) -> str:
        """Run the cells of a notebook, save it with their outputs; return what they print."""
        path = f"/api/contents/{name}"
        notebook = self.tell("GET", path)["content"]
        kernel = self.start_kernel()
        printed = ""
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                said = kernel.run(cell["source"])
                cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": said}]
                printed += said
        kernel.end()
        self.tell("PUT", path, {"type": "notebook", "content": notebook})
        return printed


class Kernel:
    """A kernel and a websocket to it."""

    def __init__(self, page: NotebookPage, number: str) -> None:
        self.page, self.id = page, number
        self.socket = websocket.create_connection(
            f"{'wss' if page.context else 'ws'}://{page.place}/api/kernels/{number}/channels",
            timeout=PATIENCE,
            sslopt={"context": page.context} if page.context else None,
            header=[f"{name}: {value}" for name, value in page.headers.items()],
        )

    def run(self, code: str, until: str = "") -> str:
        """Run code to its end, and until it has printed something; return what it prints.

        Its errors are ours. What other processes print may come after its end.
        """
        request = uuid.uuid4().hex
        header = {"msg_id": request, "msg_type": "execute_request", "session": request}
        header |= {"username": "", "version": "5.3"}
        content = {"code": code, "silent": False, "allow_stdin": False, "stop_on_error": True}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        self.socket.send(json.dumps({**message, "channel": "shell", "buffers": []}))
        printed, is_idle = "", False
        while not is_idle or until not in printed:
            told = json.loads(self.socket.recv())
            if told["parent_header"].get("msg_id") != request:
                continue
            kind, content = told["msg_type"], told["content"]
            assert kind != "error", f"{content['ename']}: {content['evalue']} {content}"
            if kind == "stream" and content["name"] == "stdout":
                printed += content["text"]
            is_idle |= kind == "status" and content["execution_state"] == "idle"
        return printed

    def end(self) -> None:
        """End the kernel."""
        self.socket.close()
        self.page.tell("DELETE", f"/api/kernels/{self.id}")


if __name__ == "__main__":
    page, folder, name = sys.argv[1:]
    print(NotebookPage(page, context_of(Path(folder))).run_notebook(name), end="")
