"""Several instances of the service on a broker that keeps a registry of them, as DXL brokers do."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dxl_broker import DxlBroker
from dxlfiletransferclient import FileTransferClient
from fabric_broker import PATIENCE, MakeFile, ServiceProcess, StartService, wait_until

from txstore import FileStoreManager
from txstore.dxl import (
    FileFetcher,
    FileSender,
    FileTransferService,
    Link,
    NoAnswerError,
    SendProgress,
)
from txstore.dxl import service as service_module
from txstore.dxl.fabric import Connection
from txstore.dxl.protocol import STORE_TOPIC

SEGMENT = 16 * 1024


@pytest.fixture
def service_dir(dxl_broker: DxlBroker, tmp_path: Path, storage: Path) -> Path:
    return dxl_broker.config_dir(tmp_path / "service", {"storageDir": storage})


@pytest.fixture
def services(start_service: StartService, service_dir: Path) -> list[ServiceProcess]:
    return [start_service(service_dir), start_service(service_dir)]


@pytest.fixture
def link(dxl_broker: DxlBroker, tmp_path: Path) -> Iterator[Link]:
    folder = dxl_broker.config_dir(tmp_path / "sender")
    with Link(folder, answer_timeout=1.0, retry_for=60.0) as link:
        yield link


@pytest.mark.usefixtures("services")
def test_instances_take_requests_in_turn(
    dxl_broker: DxlBroker, link: Link, storage: Path, make_file: MakeFile, tmp_path: Path
) -> None:
    path = make_file(10 * SEGMENT)
    FileSender(link, segment_size=SEGMENT).send(path)
    assert (storage / path.name).read_bytes() == path.read_bytes()
    assert min(dxl_broker.requests()) >= 5
    FileFetcher(link, segment_size=SEGMENT).get(path.name, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert min(dxl_broker.requests()) >= 10


def test_the_sender_goes_on_when_an_instance_is_killed(
    dxl_broker: DxlBroker,
    services: list[ServiceProcess],
    link: Link,
    storage: Path,
    make_file: MakeFile,
) -> None:
    killed: list[int] = []

    def kill(now: SendProgress) -> None:
        if now.sent == 5 * SEGMENT and not killed:
            killed.append(services[0].pid)
            services[0].kill()

    path = make_file(20 * SEGMENT)
    sent = FileSender(link, segment_size=SEGMENT).send(path, progress=kill)
    assert (killed, sent.segments) == ([services[0].pid], 20)
    assert dxl_broker.unavailable == 1
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_upstreams_client_can_send_again_after_an_instance_was_killed(
    dxl_broker: DxlBroker,
    service_dir: Path,
    services: list[ServiceProcess],
    storage: Path,
    make_file: MakeFile,
) -> None:
    def kill(result: Any) -> None:
        if result.segments_received == 5:
            services[0].kill()

    path = make_file(20 * SEGMENT)
    with dxl_broker.client(service_dir) as client:
        sender = FileTransferClient(client)
        with pytest.raises(Exception, match="unable to locate service"):
            sender.send_file_request(str(path), max_segment_size=SEGMENT, callback=kill)
        # It gives up at the first error, but not without a cancel, which reached the other one.
        with FileStoreManager(storage) as store:
            assert list(store.transfers()) == []
        sender.send_file_request(str(path), max_segment_size=SEGMENT)
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_upstreams_client_does_not_notice_a_clean_stop_and_a_start(
    dxl_broker: DxlBroker,
    service_dir: Path,
    services: list[ServiceProcess],
    start_service: StartService,
    storage: Path,
    make_file: MakeFile,
) -> None:
    codes: list[int] = []

    def restart() -> None:
        codes.append(services[0].terminate())
        start_service(service_dir)

    restarting = threading.Thread(target=restart)

    def begin(result: Any) -> None:
        if result.segments_received == 5:
            restarting.start()

    path = make_file(60 * SEGMENT)
    with dxl_broker.client(service_dir) as client:
        FileTransferClient(client).send_file_request(
            str(path), max_segment_size=SEGMENT, callback=begin
        )
    restarting.join(PATIENCE)
    assert (codes, dxl_broker.unavailable) == ([0], 0)
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_workers_are_instances_of_their_own_and_come_back_as_new_ones(
    dxl_broker: DxlBroker,
    service_dir: Path,
    start_service: StartService,
    link: Link,
    storage: Path,
    make_file: MakeFile,
) -> None:
    service = start_service(service_dir, "--workers", "4")
    assert len(dxl_broker.services) == 4
    service.kill()
    service = start_service(service_dir, "--workers", "2")
    path = make_file(10 * SEGMENT)
    FileSender(link, segment_size=SEGMENT).send(path)
    assert (storage / path.name).read_bytes() == path.read_bytes()
    assert dxl_broker.unavailable == 4
    assert service.terminate() == 0
    assert dxl_broker.services == {}


def test_a_message_that_is_too_large_is_halved(
    dxl_broker: DxlBroker,
    services: list[ServiceProcess],
    link: Link,
    storage: Path,
    make_file: MakeFile,
) -> None:
    assert len(services) == 2
    dxl_broker.limit = 600_000
    link.answer_timeout = 0.5
    path = make_file(1_500_000)
    FileSender(link).send(path)
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_answers_come_twice_or_never(
    dxl_broker: DxlBroker,
    services: list[ServiceProcess],
    link: Link,
    storage: Path,
    make_file: MakeFile,
) -> None:
    assert len(services) == 2
    seen: Counter[str] = Counter()

    def answers(_response: Any) -> int:
        seen["answers"] += 1
        return seen["answers"] % 3

    dxl_broker.answers = answers
    link.answer_timeout = 0.3
    path = make_file(10 * SEGMENT)
    sent = FileSender(link, segment_size=SEGMENT).send(path)
    assert sent.segments == 10
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_a_missing_answer_is_told_with_a_time_that_people_read(
    dxl_broker: DxlBroker, link: Link
) -> None:
    dxl_broker.hears = lambda _request: False
    with pytest.raises(NoAnswerError, match=r"no answer within 0\.3 s$"):
        link.once(STORE_TOPIC, b"", timeout=0.3237128)


def test_instances_with_one_client_id_in_their_configuration(
    dxl_broker: DxlBroker,
    service_dir: Path,
    start_service: StartService,
    link: Link,
    storage: Path,
    make_file: MakeFile,
) -> None:
    path = service_dir / "dxlclient.config"
    path.write_text("[General]\nClientId = {the-service}\n" + path.read_text())
    start_service(service_dir)
    start_service(service_dir)
    path = make_file(10 * SEGMENT)
    FileSender(link, segment_size=SEGMENT).send(path)
    assert (storage / path.name).read_bytes() == path.read_bytes()
    assert min(dxl_broker.requests()) >= 5


@pytest.mark.parametrize("code", [0x80000002, 0x80000003])
def test_errors_of_the_fabric_itself_are_waited_out(
    dxl_broker: DxlBroker,
    services: list[ServiceProcess],
    link: Link,
    storage: Path,
    make_file: MakeFile,
    code: int,
) -> None:
    assert len(services) == 2
    refused: list[str] = []

    def refuse(request: Any) -> bool:
        if request.other_fields.get("segment_number") == "3" and len(refused) < 2:
            refused.append(request.message_id)
            dxl_broker.refuse(request, code, "service is overloaded")
            return False
        return True

    dxl_broker.hears = refuse
    path = make_file(5 * SEGMENT)
    FileSender(link, segment_size=SEGMENT).send(path)
    assert len(refused) == 2
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_a_request_that_was_at_hand_when_its_instance_died_is_soon_sent_again(
    dxl_broker: DxlBroker,
    services: list[ServiceProcess],
    link: Link,
    storage: Path,
    make_file: MakeFile,
) -> None:
    killed: list[str] = []

    def kill(request: Any) -> bool:
        if request.other_fields.get("segment_number") == "5" and not killed:
            killed.append(request.message_id)
            services[0].kill()
            return False  # it was there already, and nobody will ever answer
        return True

    dxl_broker.hears = kill
    link.answer_timeout = 2 * PATIENCE
    path = make_file(10 * SEGMENT)
    assert FileSender(link, segment_size=SEGMENT).send(path).segments == 10
    assert len(killed) == 1
    assert link.first_timeout(STORE_TOPIC) < PATIENCE
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_a_service_that_may_not_send_to_its_own_topics_serves_all_the_same(
    dxl_broker: DxlBroker,
    service_dir: Path,
    link: Link,
    storage: Path,
    make_file: MakeFile,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    dxl_broker.hears = lambda request: b"self-check" not in (request.payload or b"")
    monkeypatch.setattr(service_module, "CHECK_EVERY", 0.0)
    monkeypatch.setattr(service_module, "CHECK_TIMEOUT", 0.2)
    with FileTransferService(service_dir) as service:
        assert service.run(PATIENCE)
        wait_until(lambda: "no requests from itself" in caplog.text, "it is told")
        (registered,) = dxl_broker.services
        path = make_file(10 * SEGMENT)
        FileSender(link, segment_size=SEGMENT).send(path)
        assert list(dxl_broker.services) == [registered]
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_a_registration_that_the_fabric_forgot_is_renewed(
    dxl_broker: DxlBroker, service_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "CHECK_EVERY", 0.1)
    with FileTransferService(service_dir) as service:
        assert service.run(PATIENCE)
        forgotten = list(dxl_broker.services)
        dxl_broker.services.clear()
        wait_until(lambda: len(dxl_broker.services) == 1, "it is registered again")
        assert list(dxl_broker.services) != forgotten


@pytest.mark.parametrize("back", [False, True], ids=["hangs", "hangs and restarts"])
def test_a_service_that_cannot_say_goodbye_is_not_heard_of_again(
    dxl_broker: DxlBroker, service_dir: Path, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    made: list[Any] = []

    class Watched(Connection):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self._mqtt._thread)

        def close(self, timeout: float = 0.5) -> bool:
            if back:
                # While the library waits for an answer the connection is lost.
                threading.Timer(timeout, dxl_broker.drop_connections).start()
                timeout = 3.0
            return super().close(timeout)

    monkeypatch.setattr(service_module, "Connection", Watched)
    with FileTransferService(service_dir) as service:
        assert service.run(PATIENCE)
        dxl_broker.hangs = True
    wait_until(lambda: not made[0].is_alive(), "the connection has ended for good")
    assert dxl_broker.connects == 1
