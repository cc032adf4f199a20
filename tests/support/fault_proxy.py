"""Proxies between a worker and its servers, which cut connections where a test wants it.

What travels is parsed just so far that each call has a name and each answer an end.  So a call can
be kept from its server, or be carried out and its answer lost, or never be answered.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cluster_servers import Addresses


@dataclass
class Trouble:
    """What happens to a call.

    :ivar call: its name: for PostgreSQL how the statement begins, for the object store as the
        methods of boto3's client are named
    :ivar what: ``"cut before"``, ``"cut after"``, ``"never answered"``, ``"delayed"``, or a status
        of HTTP that the object store answers with
    :ivar nth: which of the calls of that name, from 1
    :ivar times: how many in a row
    """

    call: str
    what: str | int
    nth: int = 1
    times: int = 1
    seen: int = 0

    def strikes(self, call: str) -> bool:
        """Whether it is this call's turn; to be asked once for each call."""
        if not call.startswith(self.call):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


class Plan:
    """The trouble there is to be, and what was called.  Thread-safe.

    :ivar calls: names of all calls, in order
    :ivar over: set when nothing is to be waited for any more
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.over = threading.Event()
        self._troubles: list[Trouble] = []
        self._mutex = threading.Lock()

    def add(self, call: str, what: str | int, **more: int) -> Trouble:
        """Let something happen, to the calls from now on."""
        trouble = Trouble(call, what, **more)
        with self._mutex:
            self._troubles.append(trouble)
        return trouble

    def of(self, call: str) -> str | int:
        """What happens to a call; empty: nothing."""
        with self._mutex:
            self.calls.append(call)
            struck = [one.what for one in self._troubles if one.strikes(call)]
        what = struck[0] if struck else ""
        if what == "never answered":
            self.over.wait(60)
        elif what == "delayed":
            time.sleep(0.3)  # this is what the test is about
            return ""
        return what


class _Proxied(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, handler: type[BaseRequestHandler], plan: Plan, server: str) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.plan, self.server = plan, server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections end in the middle here: that is what it is for."""


# --- PostgreSQL ----------------------------------------------------------------------------------


class _Postgres(BaseRequestHandler):
    """One connection of PostgreSQL's protocol, version 3."""

    server: _Proxied

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as theirs:
            theirs.connect(f"{self.server.server}/.s.PGSQL.5432")
            self._ours, self._theirs = self.request, theirs
            with suppress(OSError, EOFError):
                self._begin()
                while self._call():
                    pass

    def _begin(self) -> None:
        while True:
            (size,) = struct.unpack("!i", _read(self._ours, 4))
            startup = _read(self._ours, size - 4)
            if struct.unpack("!i", startup[:4])[0] >> 16 == 3:
                break
            self._ours.sendall(b"N")  # neither TLS nor GSS
        self._theirs.sendall(struct.pack("!i", size) + startup)
        self._ours.sendall(self._answer())

    def _call(self) -> bool:
        """Everything up to where an answer is waited for, and the answer."""
        call, sent = "", b""
        while True:
            kind, whole = _message(self._ours)
            sent += whole
            if kind in b"QP":
                text = whole[5:].split(b"\0")[0 if kind == b"Q" else 1]
                call = call or " ".join(text.decode(errors="replace").split())
            if kind in b"QSX":
                break
        what = self.server.plan.of(call or "again") if kind != b"X" else ""
        if what == "cut before":
            return False
        self._theirs.sendall(sent)
        if kind == b"X":
            return False
        answer = self._answer()
        if what:
            return False
        self._ours.sendall(answer)
        return True

    def _answer(self) -> bytes:
        answer = b""
        while True:
            kind, whole = _message(self._theirs)
            answer += whole
            if kind == b"Z":
                return answer


def _message(connection: socket.socket) -> tuple[bytes, bytes]:
    head = _read(connection, 5)
    return head[:1], head + _read(connection, struct.unpack("!i", head[1:])[0] - 4)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


# --- the object store ----------------------------------------------------------------------------

_CALLS: dict[tuple[str, frozenset[str]], str] = {
    ("PUT", frozenset()): "put_object",
    ("GET", frozenset()): "get_object",
    ("HEAD", frozenset()): "head_object",
    ("DELETE", frozenset()): "delete_object",
    ("POST", frozenset(["uploads"])): "create_multipart_upload",
    ("PUT", frozenset(["uploadId", "partNumber"])): "upload_part",
    ("POST", frozenset(["uploadId"])): "complete_multipart_upload",
    ("DELETE", frozenset(["uploadId"])): "abort_multipart_upload",
    ("POST", frozenset(["delete"])): "delete_objects",
    ("GET", frozenset(["list-type"])): "list_objects_v2",
    ("GET", frozenset(["uploads"])): "list_multipart_uploads",
}
_KEYS = {"uploads", "uploadId", "partNumber", "delete", "list-type"}


class _Http(BaseHTTPRequestHandler):
    """Requests to an object store."""

    protocol_version = "HTTP/1.1"
    server: _HttpServer

    def _handle(self) -> None:
        body = self._body()
        keys = {*parse_qs(urlsplit(self.path).query, keep_blank_values=True)} & _KEYS
        call = _CALLS.get((self.command, frozenset(keys)), self.command)
        if call == "upload_part" and self.headers.get("x-amz-copy-source"):
            call = "upload_part_copy"
        what = self.server.plan.of(call)
        if what == "cut before":
            self._cut()
        elif isinstance(what, int):
            self.send_response(what)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._forward(body, what)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815 - names of http.server

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        raw = b""
        while True:
            line = self.rfile.readline()
            size = int(line.split(b";")[0], 16)
            raw += line + self.rfile.read(size + 2)
            if size == 0:
                return raw

    def _forward(self, body: bytes, what: str | int) -> None:
        parts = urlsplit(self.server.server)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if what:
            self._cut()
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _HttpServer(ThreadingHTTPServer, _Proxied):
    daemon_threads = True


# --- both ----------------------------------------------------------------------------------------


@contextmanager
def proxied(addresses: Addresses) -> Iterator[tuple[Addresses, Plan, Plan]]:
    """Proxies in front of both servers: where they are, and the trouble that they make, for
    PostgreSQL and for the object store."""
    postgres, objects = Plan(), Plan()
    with ExitStack() as stack:
        servers: list[Callable[[], _Proxied]] = [
            lambda: _Proxied(_Postgres, postgres, addresses.postgres),
            lambda: _HttpServer(_Http, objects, addresses.endpoint),
        ]
        ports = []
        for make in servers:
            server = stack.enter_context(make())
            ports.append(server.server_address[1])
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            stack.callback(server.shutdown)
        stack.callback(postgres.over.set)
        stack.callback(objects.over.set)
        here = Addresses(f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
        yield here, postgres, objects
