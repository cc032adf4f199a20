"""Upstream's unmodified client against our service: nothing of it may have to change."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from dxlfiletransferclient import FileTransferClient
from fabric_broker import Broker, MakeFile, ServiceProcess, StartService, wait_until

from txstore.dxl import FileTransferService, Link
from txstore.dxl.protocol import STORE_TOPIC

UPSTREAMS_CONFIG = """\
###########################################################
## Settings
###########################################################

[General]

# Directory under which to store files (required, no default)
storageDir={storage}

;storeTopic=/opendxl-file-transfer/service/file-transfer/file/store
workingDir={working}

[MessageCallbackPool]
;queueSize=1000
threadCount=10

[IncomingMessagePool]
queueSize=1000
;threadCount=10
"""


@pytest.fixture
def service(
    broker: Broker, tmp_path: Path, storage: Path, start_service: StartService
) -> ServiceProcess:
    return start_service(broker.config_dir(tmp_path / "service", {"storageDir": storage}))


@pytest.mark.usefixtures("service")
def test_stores_files_of_any_size(
    broker: Broker, client_dir: Path, storage: Path, make_file: MakeFile
) -> None:
    with broker.client(client_dir) as client:
        for size in (0, 1, 50 * 1024, 50 * 1024 * 4, 50 * 1024 * 4 + 17):
            path = make_file(size)
            result = FileTransferClient(client).send_file_request(str(path), "sub/folder/stored")
            assert result.size == size
            assert (storage / "sub/folder/stored").read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("service")
def test_stores_a_stream_of_unknown_length_and_replaces(
    broker: Broker, client_dir: Path, storage: Path
) -> None:
    with broker.client(client_dir) as client:
        sender = FileTransferClient(client)
        for data in (b"first" * 1000, b"second" * 3000):
            sender.send_file_from_stream_request(
                io.BytesIO(data), "stored.bin", max_segment_size=4096
            )
            assert (storage / "stored.bin").read_bytes() == data


@pytest.mark.usefixtures("service")
def test_errors_say_what_is_wrong(broker: Broker, client_dir: Path, storage: Path) -> None:
    with broker.client(client_dir) as client:
        sender = FileTransferClient(client)
        with pytest.raises(Exception, match=r"'\.\./out' is refused: it lies outside the storage"):
            sender.send_file_from_stream_request(io.BytesIO(b"data"), "../out")
    assert not (storage.parent / "out").exists()


def test_takes_upstreams_folder_of_configuration_as_it_is(
    broker: Broker, tmp_path: Path, storage: Path, start_service: StartService, make_file: MakeFile
) -> None:
    folder = broker.config_dir(tmp_path / "service")
    working = tmp_path / "working"
    (folder / "dxlfiletransferservice.config").write_text(
        UPSTREAMS_CONFIG.format(storage=storage, working=working)
    )
    # What upstream's service leaves behind when it is killed.
    (working / "0b5f6b2e-left-over").mkdir(parents=True)
    (working / "0b5f6b2e-left-over" / "file").write_bytes(b"half")
    service = start_service(folder)
    path = make_file(120_000)
    with broker.client(folder) as client:
        FileTransferClient(client).send_file_request(str(path))
    assert (storage / path.name).read_bytes() == path.read_bytes()
    stored = [line for line in service.output if "Stored 'file.bin': 120000 bytes" in line]
    assert len(stored) == 1, "a line a file, not a segment"
    assert service.terminate() == 0


def test_a_topic_of_its_own(
    broker: Broker, tmp_path: Path, storage: Path, start_service: StartService, make_file: MakeFile
) -> None:
    folder = broker.config_dir(
        tmp_path / "service", {"storageDir": storage, "storeTopic": "/our/store"}
    )
    start_service(folder)
    path = make_file(120_000)
    with broker.client(folder) as client:
        FileTransferClient(client, "/our/store").send_file_request(str(path))
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_two_workers_take_one_upstream_transfer_in_turn(
    broker: Broker, tmp_path: Path, storage: Path, start_service: StartService, make_file: MakeFile
) -> None:
    folder = broker.config_dir(
        tmp_path / "service", {"storageDir": storage, "shareGroup": "workers"}
    )
    services = [start_service(folder), start_service(folder)]
    path = make_file(600_000)
    with broker.client(folder) as client:
        for number in range(2):
            FileTransferClient(client).send_file_request(str(path), f"{number}.bin")
            assert (storage / f"{number}.bin").read_bytes() == path.read_bytes()
    for service in services:
        assert service.terminate() == 0


def test_serves_again_after_the_broker_was_away(
    broker: Broker, tmp_path: Path, storage: Path, start_service: StartService, make_file: MakeFile
) -> None:
    folder = broker.config_dir(tmp_path / "service", {"storageDir": storage})
    service = start_service(folder)
    broker.stop()
    service.wait_line("Not serving")
    broker.start()
    wait_until(
        lambda: sum(STORE_TOPIC in line for line in service.output if "Serving" in line) == 2,
        "the service is back",
    )
    path = make_file(120_000)
    with broker.client(folder) as client:
        FileTransferClient(client).send_file_request(str(path))
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_a_clean_stop_answers_the_request_at_hand(
    broker: Broker, tmp_path: Path, storage: Path, link: Link
) -> None:
    folder = broker.config_dir(tmp_path / "service", {"storageDir": storage})
    service: FileTransferService

    def stop_while_at_it(handlers: Any) -> Any:
        def store(message: Any) -> Any:
            service._stop.set()
            answer = handlers[STORE_TOPIC](message)
            assert not service.ended.is_set()
            return answer

        return {**handlers, STORE_TOPIC: store}

    service = FileTransferService(folder, wrap=stop_while_at_it)
    with service:
        assert service.run(10)
        answer = link.once(STORE_TOPIC, b"data", {"segment_number": "1", "file_id": "one"})
        assert b'"segments_received": 1' in answer.payload
        assert service.stop()
