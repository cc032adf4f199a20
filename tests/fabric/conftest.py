"""The broker that these tests run against, or the reason why they cannot run."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from dxl_broker import DxlBroker
from fabric_broker import (
    AS_IN_A_TERMINAL,
    PATIENCE,
    Broker,
    Certificates,
    MakeFile,
    Registry,
    ServiceProcess,
    StartService,
    find_mosquitto,
    wait_until,
)

from txstore.dxl import FileTransferService, Link


@pytest.fixture(scope="session")
def mosquitto() -> str:
    """Path of the broker's program."""
    program = find_mosquitto()
    if program is None:
        if os.environ.get("TXSTORE_CI") == "1":
            pytest.fail("mosquitto is not installed (Debian: apt-get install mosquitto)")
        pytest.skip("mosquitto is not installed (Debian: apt-get install mosquitto)")
    return program


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for all of the session."""
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def fabric(
    certificates: Certificates, mosquitto: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Broker, Registry]]:
    """The broker and its registry."""
    folder = tmp_path_factory.mktemp("broker")
    broker = Broker(folder, certificates, mosquitto)
    broker.start()
    registry = Registry(broker.config_dir(folder / "registry"))
    try:
        yield broker, registry
    finally:
        broker.start()
        registry.close()
        broker.stop()


@pytest.fixture
def broker(fabric: tuple[Broker, Registry]) -> Broker:
    """The broker, up and with a registry that answers, whatever an earlier test did to it."""
    broker, registry = fabric
    broker.start()
    wait_until(registry.answers, "the registry is back")
    return broker


@pytest.fixture
def dxl_broker(certificates: Certificates) -> Iterator[DxlBroker]:
    """A broker with a registry of services, as on a DXL fabric."""
    broker = DxlBroker(certificates)
    yield broker
    broker.stop()


@pytest.fixture
def client_dir(broker: Broker, tmp_path: Path) -> Path:
    """A folder of configuration for a client."""
    return broker.config_dir(tmp_path / "client")


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Where the service stores."""
    return tmp_path / "storage"


@pytest.fixture
def start_service() -> Iterator[StartService]:
    """Start service processes, which are killed at the end of the test."""
    started: list[ServiceProcess] = []

    def start(
        config_dir: Path, *options: str, wait: bool = True, first: str = AS_IN_A_TERMINAL
    ) -> ServiceProcess:
        process = ServiceProcess(config_dir, *options, wait=False, first=first)
        started.append(process)
        if wait:
            process.wait_ready()
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def link(client_dir: Path) -> Iterator[Link]:
    """A sender's way to the fabric, with short waits."""
    with Link(client_dir, answer_timeout=1.0, retry_for=60.0) as link:
        yield link


@pytest.fixture
def make_file(tmp_path: Path) -> MakeFile:
    """Make files whose bytes differ from each other's and are the same in each run."""
    folder = tmp_path / "files"
    folder.mkdir()

    def make(size: int, name: str = "file.bin") -> Path:
        path = folder / name
        path.write_bytes(random.Random(name).randbytes(size))
        return path

    return make


@pytest.fixture
def service_dir(broker: Broker, tmp_path: Path, storage: Path) -> Path:
    return broker.config_dir(tmp_path / "service", {"storageDir": storage})


@pytest.fixture
def shared_dir(broker: Broker, tmp_path: Path, storage: Path) -> Path:
    """For services that take requests in turn, as a DXL broker would have them do."""
    return broker.config_dir(tmp_path / "service", {"storageDir": storage, "shareGroup": "workers"})


@pytest.fixture
def service(service_dir: Path) -> Iterator[FileTransferService]:
    """The service in this process."""
    with FileTransferService(service_dir) as service:
        assert service.run(PATIENCE)
        yield service
        assert service.stop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of a few segments."""
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(range(256)) * 4)
    return path
