"""What a DXL broker does with requests, answers and registrations, over MQTT on a loopback port.

Mosquitto knows nothing of services.  This broker has the registry: it sends each request to the
next instance of its service, with fields added, and answers in the place of an instance that is
gone, once, before it forgets it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dxlclient.message import ErrorResponse, Message, Request, Response
from fabric_broker import Certificates, Fabric

MESSAGE_LIMIT = 1024 * 1024
SERVICE_UNAVAILABLE = 0x80000001

_REGISTRY = "/mcafee/service/dxl/svcregistry/"
_CONNECT, _PUBLISH, _SUBSCRIBE, _UNSUBSCRIBE, _PING, _DISCONNECT = 1, 3, 8, 10, 12, 14


class _Client:
    """One connection."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self.connection = connection
        self.stream = connection.makefile("rb")
        self.name = ""
        self.topics: set[str] = set()
        self._sending = threading.Lock()

    def read(self) -> tuple[int, bytes]:
        """The next packet: its kind and its body.

        :raises EOFError: the connection has ended
        """
        kind = self._exactly(1)[0]
        length = 0
        for shift in itertools.count(step=7):
            byte = self._exactly(1)[0]
            length |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return kind >> 4, self._exactly(length)
        raise AssertionError

    def _exactly(self, length: int) -> bytes:
        data = self.stream.read(length)
        if len(data) < length:
            raise EOFError
        return data

    def send(self, kind: int, body: bytes) -> None:
        length = len(body)
        header = bytearray([kind])
        while True:
            length, low = divmod(length, 0x80)
            header.append(low | (0x80 if length else 0))
            if not length:
                break
        # One that is gone gets nothing; its own thread notices.
        with self._sending, contextlib.suppress(OSError):
            self.connection.sendall(bytes(header) + body)

    def deliver(self, topic: str, message: Any) -> None:
        name = topic.encode()
        self.send(_PUBLISH << 4, len(name).to_bytes(2, "big") + name + message._to_bytes())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


@dataclass
class _Service:
    id: str
    client: str
    topics: list[str]
    requests: int = 0


@dataclass
class DxlBroker(Fabric):
    """Runs from :meth:`start` to :meth:`stop`.

    :ivar limit: bytes of the largest message; larger ones vanish
    :ivar hears: called with each request for a service; one for which it is false vanishes
    :ivar answers: called with each answer; says how many times it is passed on
    :ivar unavailable: requests that were answered in the place of an instance that was gone
    :ivar hangs: no message is passed on
    :ivar connects: connections that were taken
    """

    certificates: Certificates
    limit: int = MESSAGE_LIMIT
    hears: Callable[[Any], bool] = lambda _request: True
    answers: Callable[[Any], int] = lambda _response: 1
    unavailable: int = 0
    hangs: bool = False
    connects: int = 0
    services: dict[str, _Service] = field(default_factory=dict)
    port: int = field(init=False)

    def __post_init__(self) -> None:
        self._clients: dict[str, _Client] = {}
        self._lock = threading.RLock()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*map(str, self.certificates.pair("broker")))
        self._context.load_verify_locations(str(self.certificates.authority))
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """End it, and every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()

    def drop_connections(self) -> None:
        """End every connection; new ones are taken."""
        with self._lock:
            for client in self._clients.values():
                client.close()

    def requests(self) -> list[int]:
        """How many requests each registered instance got."""
        with self._lock:
            return [service.requests for service in self.services.values()]

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._attend, args=(plain,), daemon=True).start()

    def _attend(self, plain: socket.socket) -> None:
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self._context.wrap_socket(plain, server_side=True)
        except OSError:  # one that only looked whether somebody listens
            plain.close()
            return
        client = _Client(connection)
        try:
            while True:
                kind, body = client.read()
                if kind == _DISCONNECT:
                    return
                self._packet(client, kind, body)
        except (EOFError, OSError):
            return
        finally:
            with self._lock:
                if self._clients.get(client.name) is client:
                    del self._clients[client.name]
            connection.close()

    def _packet(self, client: _Client, kind: int, body: bytes) -> None:
        if kind == _CONNECT:
            length = int.from_bytes(body[10:12], "big")
            client.name = body[12 : 12 + length].decode()
            with self._lock:
                before = self._clients.get(client.name)
                self._clients[client.name] = client
                self.connects += 1
            if before is not None:
                before.close()
            client.send(0x20, b"\0\0")
        elif kind in (_SUBSCRIBE, _UNSUBSCRIBE):
            at = 2
            while at < len(body):
                length = int.from_bytes(body[at : at + 2], "big")
                topic = body[at + 2 : at + 2 + length].decode()
                at += 2 + length
                if kind == _SUBSCRIBE:
                    at += 1
                    client.topics.add(topic)
                else:
                    client.topics.discard(topic)
            client.send(*((0x90, body[:2] + b"\0") if kind == _SUBSCRIBE else (0xB0, body[:2])))
        elif kind == _PING:
            client.send(0xD0, b"")
        elif kind == _PUBLISH and len(body) <= self.limit and not self.hangs:
            length = int.from_bytes(body[:2], "big")
            self._message(client, body[2 : 2 + length].decode(), body[2 + length :])

    def _message(self, client: _Client, topic: str, data: bytes) -> None:
        message = Message._from_bytes(data)
        message._source_client_id = client.name
        message._source_broker_id = "{broker}"
        message.other_fields["dxl.certs"] = "certificates of the client"
        if not isinstance(message, Request):
            for _ in range(self.answers(message)):
                self._pass_on(topic, message)
        elif topic.startswith(_REGISTRY):
            self._register(client, topic.removeprefix(_REGISTRY), message)
        elif self.hears(message):
            self._route(topic, message)

    def _pass_on(self, topic: str, message: Any) -> None:
        with self._lock:
            clients = [client for client in self._clients.values() if topic in client.topics]
        for client in clients:
            client.deliver(topic, message)

    def _register(self, client: _Client, action: str, request: Any) -> None:
        facts = json.loads(request.payload)
        service_id = facts["serviceGuid"]
        with self._lock:
            if action == "unregister":
                self.services.pop(service_id, None)
            elif service_id not in self.services:
                service = _Service(service_id, client.name, facts["requestChannels"])
                self.services[service_id] = service
        answer = Response(request)
        answer.payload = b""
        self._pass_on(request.reply_to_topic, answer)

    def _route(self, topic: str, request: Any) -> None:
        with self._lock:
            service = self._next(topic, request.service_id)
            if service is not None:
                request.service_id = service.id
                client = self._clients.get(service.client)
                if client is not None and topic in client.topics:
                    service.requests += 1
                    client.deliver(topic, request)
                    return
                del self.services[service.id]
                self.unavailable += 1
        self.refuse(request, SERVICE_UNAVAILABLE, "unable to locate service for request")

    def refuse(self, request: Any, code: int, text: str) -> None:
        """Answer in the place of the service; ``code`` has 32 bits and goes out with a sign."""
        answer = ErrorResponse(request, code - 2**32, text)
        self._pass_on(request.reply_to_topic, answer)

    def _next(self, topic: str, service_id: str) -> _Service | None:
        if service_id:
            return self.services.get(service_id)
        for key, service in self.services.items():
            if topic in service.topics:
                # To the end of the row.
                self.services[key] = self.services.pop(key)
                return service
        return None
