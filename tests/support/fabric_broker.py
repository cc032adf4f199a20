"""A real Mosquitto on a loopback port, with certificates of its own, for unmodified DXL clients."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from dxlclient.client import DxlClient
from dxlclient.client_config import DxlClientConfig

from txstore.dxl import FabricError, NoAnswerError
from txstore.dxl.client_config import load_client_config
from txstore.dxl.fabric import Connection
from txstore.dxl.protocol import Reply

full_only = pytest.mark.skipif(
    os.environ.get("TXSTORE_FULL") != "1", reason="runs only with TXSTORE_FULL=1"
)

#: Seconds after which a test that waits for something gives up.
PATIENCE = 30.0

_REGISTRY: dict[str, bytes] = {
    "/mcafee/service/dxl/svcregistry/register": b"",
    "/mcafee/service/dxl/svcregistry/unregister": b"",
    "/mcafee/service/dxl/brokerregistry/query": b'{"brokers":{}}',
}


def find_mosquitto() -> str | None:
    """Path of the broker's program, ``None`` where it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def wait_until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait for a state of another process that announces itself in no other way.

    :raises AssertionError: if it does not come within ``patience`` seconds
    """
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        pause.wait(0.02)


@dataclass(frozen=True)
class Certificates:
    """PEM files of one authority, the broker and a client."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    def pair(self, name: str) -> tuple[Path, Path]:
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """Make them with the ``openssl`` command."""
        made = cls(folder)
        made._openssl("req", "-x509", "-subj", "/CN=test authority", *made._new_key("ca"))
        for name in ("broker", "client"):
            request = folder / f"{name}.csr"
            made._openssl("req", "-subj", f"/CN={name}", *made._new_key(name, request))
            made._openssl(
                *("x509", "-req", "-in", str(request), "-days", "2", "-set_serial", "2"),
                *("-CA", str(made.authority), "-CAkey", str(folder / "ca.key")),
                *("-out", str(made.pair(name)[0])),
            )
        return made

    def _new_key(self, name: str, out: Path | None = None) -> list[str]:
        certificate, key = self.pair(name)
        # RSA, because dxlclient asks for the cipher AES128-SHA256.
        options = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-sha256"]
        options += ["-new"] if out else ["-days", "2"]
        return [*options, "-out", str(out or certificate)]

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


class Fabric:
    """A broker, as its clients see it."""

    certificates: Certificates
    port: int

    def config_dir(self, folder: Path, general: dict[str, object] | None = None) -> Path:
        """Make a folder of configuration; with ``general`` one for a service."""
        folder.mkdir()
        certificate, key = self.certificates.pair("client")
        (folder / "dxlclient.config").write_text(
            "[Certs]\n"
            f"BrokerCertChain={self.certificates.authority}\n"
            f"CertFile={certificate}\n"
            f"PrivateKey={key}\n"
            "[Brokers]\n"
            f"broker=broker;{self.port};127.0.0.1;127.0.0.1\n"
        )
        if general is not None:
            lines = [f"{key}={value}\n" for key, value in general.items()]
            (folder / "dxlfiletransferservice.config").write_text("[General]\n" + "".join(lines))
        return folder

    @contextlib.contextmanager
    def client(self, config_dir: Path) -> Iterator[Any]:
        """An unmodified, connected DxlClient."""
        config = DxlClientConfig.create_dxl_config_from_file(str(config_dir / "dxlclient.config"))
        with DxlClient(config) as client:
            client.connect()
            yield client


class Broker(Fabric):
    """One Mosquitto, which can be stopped and started again on the same port."""

    def __init__(self, folder: Path, certificates: Certificates, program: str) -> None:
        self.folder = folder
        self.certificates = certificates
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        certificate, key = certificates.pair("broker")
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\n"
            f"cafile {certificates.authority}\n"
            f"certfile {certificate}\n"
            f"keyfile {key}\n"
            "require_certificate true\n"
            # The identity would replace the client ids that answers are addressed to.
            "use_identity_as_username false\n"
            "allow_anonymous true\n"
            "max_inflight_messages 0\n"
            "set_tcp_nodelay true\n"
            "max_queued_messages 0\n"
            "persistence false\n"
            # Mosquitto as root becomes another user, who cannot read the test's keys.
            "user root\n"
        )

    def start(self) -> None:
        """Start it, unless it runs, and wait until it takes connections."""
        if self._process is not None:
            return
        log = (self.folder / "mosquitto.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self.folder / "mosquitto.conf")],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._listens, "the broker listens")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "mosquitto.log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        """Kill it, as a power loss would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    @contextlib.contextmanager
    def restarted_with(self, lines: str) -> Iterator[None]:
        """For the time of a ``with``, other lines in its configuration."""
        path = self.folder / "mosquitto.conf"
        usual = path.read_text()
        path.write_text(usual + lines)
        self.stop()
        self.start()
        try:
            yield
        finally:
            path.write_text(usual)
            self.stop()


class Registry:
    """Answers what a DXL broker's service registry would; Mosquitto has none."""

    def __init__(self, config_dir: Path) -> None:
        self._config = load_client_config(config_dir)
        self._stop = threading.Event()
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        closing = threading.Thread()
        handlers = {topic: _answer(payload) for topic, payload in _REGISTRY.items()}
        while not self._stop.is_set():
            try:
                connection = Connection(self._config, self._stop.is_set)
            except FabricError:
                self._stop.wait(0.02)
                continue
            connection.share("registry", handlers)
            self._connection = connection
            # Back before any service that was thrown off by the same restart of the broker.
            while connection.connected and not self._stop.wait(0.02):
                continue
            self._connection = None
            closing = threading.Thread(target=connection.close)
            closing.start()
        if closing.is_alive():
            closing.join(PATIENCE)

    def answers(self) -> bool:
        """Whether it is connected (again)."""
        try:
            connection = self._connection
            return connection is not None and bool(
                connection.request("/mcafee/service/dxl/brokerregistry/query", b"", timeout=1)
            )
        except NoAnswerError:
            return False

    def close(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(PATIENCE)


def _answer(payload: bytes) -> Callable[[Any], Reply]:
    return lambda _request: Reply(payload, {})


class MakeFile(Protocol):
    """Makes a file of some size."""

    def __call__(self, size: int, name: str = ...) -> Path: ...


class StartService(Protocol):
    """Starts a service process that ends with the test."""

    def __call__(
        self, config_dir: Path, *options: str, wait: bool = ..., first: str = ...
    ) -> ServiceProcess: ...


AS_IN_A_TERMINAL = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"


class ServiceProcess:
    """``txstore serve`` in a process of its own, that can be killed.

    :param first: a statement to begin with; by default SIGHUP is what it is in a terminal, also
        where the tests were started with ``nohup``
    """

    def __init__(
        self, config_dir: Path, *options: str, wait: bool = True, first: str = AS_IN_A_TERMINAL
    ) -> None:
        self.output: list[str] = []
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", f"{first}; from txstore.cli import main; main()"),
                *("serve", str(config_dir), *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if wait:
            self.wait_ready()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output.append(line.rstrip("\n"))
            if line.startswith("txstore: ready"):
                self._ready.set()
        self._ready.set()

    def wait_ready(self) -> None:
        assert self._ready.wait(PATIENCE), self.output
        assert self._process.poll() is None, self.output

    def wait_line(self, part: str) -> str:
        """The first line of its output with ``part`` in it."""
        wait_until(lambda: any(part in line for line in self.output), f"{part!r} is logged")
        return next(line for line in self.output if part in line)

    def kill(self) -> None:
        """SIGKILL to all of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.wait()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """The exit code."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code
