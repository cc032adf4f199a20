"""Many service processes over one storage: killed, restarted, stopped, or badly configured."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dxlfiletransferclient import FileTransferClient
from fabric_broker import (
    PATIENCE,
    Broker,
    MakeFile,
    ServiceProcess,
    StartService,
    full_only,
    wait_until,
)

from txstore.dxl import FileSender, FileTransferService, Link, SendProgress
from txstore.dxl import service as service_module
from txstore.dxl.fabric import Connection
from txstore.dxl.protocol import Topics

SEGMENT = 16 * 1024


def each(every: int, act: Callable[[int], object]) -> Callable[[SendProgress], None]:
    """A progress callback that acts after every so many bytes, with 0, 1, 2, ..."""
    acted: list[int] = []

    def progress(now: SendProgress) -> None:
        if now.sent >= every * (len(acted) + 1) and now.sent < now.size:
            acted.append(now.sent)
            act(len(acted) - 1)

    return progress


@pytest.mark.parametrize(
    "count", [2, pytest.param(4, marks=full_only)], ids=lambda count: f"{count} processes"
)
def test_processes_killed_and_restarted_on_the_way(
    shared_dir: Path,
    link: Link,
    storage: Path,
    make_file: MakeFile,
    start_service: StartService,
    count: int,
) -> None:
    services = [start_service(shared_dir) for _ in range(count)]

    def replace(number: int) -> None:
        victim = number % count
        services[victim].kill()
        services[victim] = start_service(shared_dir, wait=number % 2 == 0)

    path = make_file(8 * count * SEGMENT + 7)
    # In a thread of its own: while the sender goes on, so that requests are under way.
    with ThreadPoolExecutor(1) as killer:
        replaced: list[Future[None]] = []
        FileSender(link, segment_size=SEGMENT).send(
            path,
            progress=each(
                4 * SEGMENT, lambda number: replaced.append(killer.submit(replace, number))
            ),
        )
    for future in replaced:
        future.result()
    assert len(replaced) == 2 * count
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_all_processes_killed_at_once(
    shared_dir: Path, link: Link, storage: Path, make_file: MakeFile, start_service: StartService
) -> None:
    services = [start_service(shared_dir) for _ in range(2)]

    def restart(_: int) -> None:
        for service in services:
            service.kill()
        services[:] = [start_service(shared_dir, wait=False) for _ in range(2)]

    path = make_file(9 * SEGMENT)
    FileSender(link, segment_size=SEGMENT).send(path, progress=each(4 * SEGMENT, restart))
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_upstreams_client_does_not_notice_a_clean_stop(
    broker: Broker,
    shared_dir: Path,
    storage: Path,
    make_file: MakeFile,
    start_service: StartService,
) -> None:
    services = [start_service(shared_dir) for _ in range(2)]
    stopping: list[threading.Thread] = []
    codes: list[int] = []

    def stop_one(result: object) -> None:
        if getattr(result, "segments_received", 0) == 4:
            stopping.append(threading.Thread(target=lambda: codes.append(services[0].terminate())))
            stopping[0].start()

    path = make_file(30 * SEGMENT)
    with broker.client(shared_dir) as client:
        FileTransferClient(client).send_file_request(
            str(path), max_segment_size=SEGMENT, callback=stop_one
        )
    stopping[0].join(PATIENCE)
    assert codes == [0]
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_a_dead_worker_is_started_again(
    shared_dir: Path, link: Link, storage: Path, make_file: MakeFile, start_service: StartService
) -> None:
    service = start_service(shared_dir, "--workers", "2")
    assert "ready, 2 workers" in service.wait_line("txstore: ready")
    victim = int(service.wait_line("Worker 1 is process").split()[-1])

    def kill(_: int) -> None:
        os.kill(victim, signal.SIGKILL)
        service.wait_line(f"Worker 1 (process {victim}) ended with code -9")
        wait_until(
            lambda: sum("Worker 1 is process" in line for line in service.output) == 2,
            "worker 1 is started again",
        )

    path = make_file(10 * SEGMENT)
    FileSender(link, segment_size=SEGMENT).send(path, progress=each(5 * SEGMENT, kill))
    assert (storage / path.name).read_bytes() == path.read_bytes()
    assert service.terminate() == 0


@pytest.mark.parametrize("edited", ["[General]\nstorageDir=other\n", "broken\n"])
def test_a_worker_started_again_serves_what_the_service_was_started_with(
    shared_dir: Path,
    link: Link,
    storage: Path,
    make_file: MakeFile,
    start_service: StartService,
    edited: str,
) -> None:
    service = start_service(shared_dir, "--workers", "2")
    (shared_dir / "dxlfiletransferservice.config").write_text(edited)
    for number in (1, 2):
        victim = int(service.wait_line(f"Worker {number} is process").split()[-1])
        os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: sum("INFO Serving" in line for line in service.output) == 4,
        "both are there again",
    )
    path = make_file(4 * SEGMENT)
    FileSender(link, segment_size=SEGMENT).send(path)
    assert (storage / path.name).read_bytes() == path.read_bytes()
    assert service.terminate() == 0


def test_a_worker_that_cannot_start_again_says_why(
    shared_dir: Path, start_service: StartService
) -> None:
    service = start_service(shared_dir, "--workers", "2")
    (shared_dir / "dxlclient.config").unlink()
    os.kill(int(service.wait_line("Worker 1 is process").split()[-1]), signal.SIGKILL)
    assert "dxlclient.config: there is no such file" in service.wait_line("cannot work any more")
    assert service.terminate() == 0
    assert not any("Traceback" in line for line in service.output)


def test_workers_end_with_their_supervisor(shared_dir: Path, start_service: StartService) -> None:
    service = start_service(shared_dir, "--workers", "2")
    workers = [int(line.split()[-1]) for line in service.output if "is process" in line]
    assert len(workers) == 2
    os.kill(service.pid, signal.SIGKILL)
    # The output ends only when nobody holds it any more.
    service.wait()
    wait_until(lambda: not any(map(_runs, workers)), "the workers have ended")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["alone", "supervised"])
def test_tells_systemd_that_it_is_ready_and_stops_on_sigterm(
    shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(address)
        notify.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        service = ServiceProcess(shared_dir, *options, wait=False)
        try:
            assert notify.recv(100) == b"READY=1"
            assert service.terminate() == 0
        finally:
            service.kill()


def test_serves_though_nobody_listens_to_its_readiness(
    shared_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start_service: StartService,
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert start_service(shared_dir).terminate() == 0


def test_stops_while_there_is_no_broker(
    broker: Broker, shared_dir: Path, start_service: StartService
) -> None:
    broker.stop()
    service = start_service(shared_dir, wait=False)
    service.wait_line("Connecting")
    assert service.terminate() == 0


def _no_storage(folder: Path) -> None:
    (folder / "dxlfiletransferservice.config").write_text("[General]\nstorageDir=\n")


def _no_service_config(folder: Path) -> None:
    (folder / "dxlfiletransferservice.config").unlink()


def _storage_is_a_file(folder: Path) -> None:
    (folder / "file").touch()
    (folder / "dxlfiletransferservice.config").write_text(
        f"[General]\nstorageDir={folder / 'file'}\n"
    )


def _working_dir_is_a_file(folder: Path) -> None:
    (folder / "file").touch()
    (folder / "dxlfiletransferservice.config").write_text(
        f"[General]\nstorageDir={folder / 'files'}\nworkingDir={folder / 'file'}\n"
    )


def _mode_for_nobody(folder: Path) -> None:
    (folder / "dxlfiletransferservice.config").write_text(
        f"[General]\nstorageDir={folder / 'files'}\nmode=0000\n"
    )


def _no_client_config(folder: Path) -> None:
    (folder / "dxlclient.config").unlink()


def _no_certificate(folder: Path) -> None:
    path = folder / "dxlclient.config"
    path.write_text(path.read_text().replace("client.crt", "missing.crt"))


def _anothers_key(folder: Path) -> None:
    path = folder / "dxlclient.config"
    path.write_text(path.read_text().replace("client.key", "broker.key"))


def _encrypted_key(folder: Path) -> None:
    path = folder / "dxlclient.config"
    key = next(
        line[11:] for line in path.read_text().splitlines() if line.startswith("PrivateKey=")
    )
    encrypt = ["openssl", "pkcs8", "-topk8", "-passout", "pass:secret", "-in", key]
    subprocess.run([*encrypt, "-out", str(folder / "encrypted.key")], check=True, timeout=PATIENCE)
    path.write_text(path.read_text().replace(key, str(folder / "encrypted.key")))


def _no_broker(folder: Path) -> None:
    path = folder / "dxlclient.config"
    path.write_text(path.read_text().split("[Brokers]")[0] + "[Brokers]\n")


def _bad_logging(folder: Path) -> None:
    (folder / "logging.config").write_text("[loggers]\nkeys=root\n")


def _bad_logging_class(folder: Path) -> None:
    (folder / "logging.config").write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=h\n[formatters]\nkeys=\n"
        "[logger_root]\nhandlers=h\n[handler_h]\nclass=missing.Handler\nargs=()\n"
    )


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (_no_storage, "storageDir is missing"),
        (_no_service_config, "dxlfiletransferservice.config"),
        (_storage_is_a_file, "[General] storageDir: "),
        (_working_dir_is_a_file, "[General] workingDir: "),
        (_mode_for_nobody, "[General] mode: "),
        (_no_client_config, "there is no such file"),
        (_no_certificate, "missing.crt"),
        (_anothers_key, "KEY_VALUES_MISMATCH|mismatch"),
        (_encrypted_key, "encrypted.key is encrypted"),
        (_no_broker, "names no broker"),
        (_bad_logging, "logging.config"),
        (_bad_logging_class, "missing"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_configuration_that_cannot_work_is_refused_before_connecting(
    shared_dir: Path, spoil: Callable[[Path], None], what: str
) -> None:
    spoil(shared_dir)
    service = ServiceProcess(shared_dir, wait=False)
    assert service.wait() == 78, service.output
    error = next(line for line in service.output if line.startswith("Error:"))
    assert any(part in error for part in what.split("|")), error


def test_a_lost_registration_is_noticed_and_renewed(
    broker: Broker,
    tmp_path: Path,
    storage: Path,
    link: Link,
    make_file: MakeFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Connection] = []

    class Watched(Connection):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(service_module, "Connection", Watched)
    monkeypatch.setattr(service_module, "CHECK_EVERY", 0.3)
    monkeypatch.setattr(service_module, "CHECK_TIMEOUT", 0.5)
    folder = broker.config_dir(tmp_path / "service", {"storageDir": storage})
    with FileTransferService(folder) as service:
        assert service.run(PATIENCE)
        # As if the broker had forgotten the service, without closing the connection.
        for topic in (Topics().store, Topics().status):
            made[0]._client.unsubscribe(topic)
        path = make_file(3 * SEGMENT)
        FileSender(link, segment_size=SEGMENT).send(path)
    assert len(made) > 1
    assert (storage / path.name).read_bytes() == path.read_bytes()
