"""Brokers that say nothing, and services that come back later than a sender: waits are bounded."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fabric_broker import PATIENCE, Broker, Certificates, Fabric, MakeFile
from fabric_command import run

from txstore.dxl import FileSender, FileTransferService, Link, SendProgress

SEGMENT = 16 * 1024


CONNECT, SUBSCRIBE = 0x10, 0x82


class SilentBroker(Fabric):
    """Accepts connections, and never says anything on them from a certain moment on.

    :param moment: ``"before TLS"``, ``"after TLS"``, ``"after CONNACK"``, or ``"after SUBACK"``
    """

    def __init__(self, certificates: Certificates, moment: str) -> None:
        self.certificates, self._moment = certificates, moment
        tls = moment != "before TLS"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
        if self._context is not None:
            self._context.load_cert_chain(*certificates.pair("broker"))
        self.has_greeted = moment == "after SUBACK"
        self._accepted: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                accepted, _ = self._listener.accept()
                with contextlib.suppress(ssl.SSLError):
                    if self._context is not None:
                        accepted = self._context.wrap_socket(accepted, server_side=True)
                self._accepted.append(accepted)
                if self._moment in ("after CONNACK", "after SUBACK"):
                    threading.Thread(target=self._greet, args=(accepted,), daemon=True).start()

    def _greet(self, accepted: socket.socket) -> None:
        """Take each packet; answer those that begin a session."""
        with contextlib.suppress(OSError), accepted.makefile("rb") as packets:
            while kind := packets.read(1):
                length = shift = 0
                while True:
                    byte = packets.read(1)[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                body = packets.read(length)
                if kind[0] == CONNECT:
                    accepted.sendall(b"\x20\x02\x00\x00")
                elif kind[0] == SUBSCRIBE and self._moment == "after SUBACK":
                    accepted.sendall(b"\x90\x03" + body[:2] + b"\x00")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for accepted in self._accepted:
            accepted.close()


@pytest.fixture(params=["before TLS", "after TLS", "after CONNACK", "after SUBACK"])
def silent(certificates: Certificates, request: pytest.FixtureRequest) -> Iterator[SilentBroker]:
    broker = SilentBroker(certificates, request.param)
    yield broker
    broker.close()


@pytest.mark.parametrize("command", ["send", "get", "files"])
def test_a_broker_that_says_nothing_holds_no_command_for_longer_than_was_asked(
    silent: SilentBroker, tmp_path: Path, make_file: MakeFile, command: str
) -> None:
    folder = silent.config_dir(tmp_path / "client")
    what: dict[str, list[object]] = {"send": [make_file(10)], "get": ["name"], "files": []}
    began = time.monotonic()
    code, output = run(command, *what[command], "--config", folder, "--retry-for", "2")
    # Three seconds to connect, and the interpreter's start on a busy machine.
    assert time.monotonic() - began < 12, output
    assert code == 1, output
    at_last = "no answer" if silent.has_greeted else "cannot connect to the fabric"
    assert f"nothing went forward for 2 s; at last: {at_last}" in output


def test_a_service_that_comes_back_later_than_the_sender_is_not_waited_for_in_vain(
    broker: Broker, tmp_path: Path, storage: Path, client_dir: Path, make_file: MakeFile
) -> None:
    folder = broker.config_dir(tmp_path / "service", {"storageDir": storage, "shareGroup": "all"})
    running = FileTransferService(folder)
    assert running.run(PATIENCE)
    notices: list[str] = []
    later = FileTransferService(folder)

    def sent_to_nobody() -> list[str]:
        return [text for text in notices if text.startswith("no answer within")]

    def notice(text: str) -> None:
        notices.append(text)
        if len(sent_to_nobody()) == 3 and not later.ready.is_set():
            assert later.run(PATIENCE)

    def lose(now: SendProgress) -> None:
        if now.sent == 3 * SEGMENT:
            assert running.stop()
            broker.stop()
            broker.start()

    path = make_file(6 * SEGMENT)
    try:
        with Link(client_dir, answer_timeout=2 * PATIENCE, retry_for=600, notice=notice) as link:
            began = time.monotonic()
            FileSender(link, segment_size=SEGMENT).send(path, progress=lose)
            took = time.monotonic() - began
    finally:
        later.stop()
        running.stop()
    assert len(sent_to_nobody()) >= 3, notices
    assert took < PATIENCE, notices
    assert (storage / path.name).read_bytes() == path.read_bytes()
