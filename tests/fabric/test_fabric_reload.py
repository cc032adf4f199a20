"""SIGHUP: a service reads its configuration again, opens its logs anew, and loses no request."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from dxlfiletransferclient import FileTransferClient
from fabric_broker import (
    PATIENCE,
    Broker,
    MakeFile,
    ServiceProcess,
    StartService,
    wait_until,
)

from txstore.dxl import FileSender, Link, RemoteError, ServiceConfig
from txstore.dxl.logs import Logs
from txstore.dxl.supervisor import Supervisor, _Worker
from txstore.dxl.systemd import Herald

SEGMENT = 16 * 1024

alone_and_supervised = pytest.mark.parametrize(
    "options", [[], ["--workers", "2"]], ids=["alone", "supervised"]
)


class Systemd:
    """What a service tells systemd."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE)

    def next(self) -> str:
        """The next word but signs of life."""
        while (word := self._socket.recv(200).decode()) == "WATCHDOG=1":
            continue
        return word

    def sign_of_life(self) -> None:
        while self._socket.recv(200) != b"WATCHDOG=1":
            continue

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    yield systemd
    systemd.close()


def edit(folder: Path, text: str) -> None:
    """Add options to the configuration of a service."""
    path = folder / "dxlfiletransferservice.config"
    path.write_text(path.read_text() + text)


def reload(service: ServiceProcess, systemd: Systemd, *, whole: bool = False) -> None:
    """Have it read the configuration again, and wait until that is served.

    :param whole: the signal goes to all of its processes
    """
    (os.killpg if whole else os.kill)(service.pid, signal.SIGHUP)
    assert systemd.next().startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert systemd.next() == "READY=1"


@alone_and_supervised
def test_what_may_change_does_and_what_may_not_is_said(
    shared_dir: Path,
    link: Link,
    storage: Path,
    make_file: MakeFile,
    start_service: StartService,
    systemd: Systemd,
    options: list[str],
) -> None:
    service = start_service(shared_dir, *options)
    assert systemd.next() == "READY=1"
    path = make_file(2 * SEGMENT)
    FileSender(link, segment_size=SEGMENT).send(path)
    edit(shared_dir, "maxFileSize=100\nlockTimeout=20\nmode=0660\nnoOption=1\n")
    reload(service, systemd)
    service.wait_line("Options that changed: lockTimeout, maxFileSize. Connecting anew")
    service.wait_line("WARNING mode stays as it was until the service is restarted")
    service.wait_line("Ignored: ")
    service.wait_line("The logs were opened anew")
    with pytest.raises(RemoteError, match="at most 100 bytes"):
        FileSender(link, segment_size=SEGMENT).send(path, "other")
    small = make_file(50, "small")
    FileSender(link).send(small)
    assert (storage / "small").read_bytes() == small.read_bytes()
    systemd.sign_of_life()
    reload(service, systemd)
    service.wait_line("Options that changed: none")
    assert sum(line.startswith("txstore: ready") for line in service.output) == 1
    assert service.terminate() == 0
    assert systemd.next() == "STOPPING=1"
    assert not any("ended with code" in line for line in service.output)


@alone_and_supervised
def test_a_client_that_repeats_nothing_does_not_notice(
    broker: Broker,
    shared_dir: Path,
    storage: Path,
    make_file: MakeFile,
    start_service: StartService,
    options: list[str],
) -> None:
    service = start_service(shared_dir, *options)

    def hang_up(result: object) -> None:
        if getattr(result, "segments_received", 0) in (4, 14):
            os.kill(service.pid, signal.SIGHUP)

    path = make_file(30 * SEGMENT)
    with broker.client(shared_dir) as client:
        FileTransferClient(client).send_file_request(
            str(path), max_segment_size=SEGMENT, callback=hang_up
        )
    assert (storage / path.name).read_bytes() == path.read_bytes()
    service.wait_line("Options that changed: none")
    assert service.terminate() == 0


def test_a_configuration_that_cannot_work_changes_nothing(
    shared_dir: Path,
    link: Link,
    make_file: MakeFile,
    start_service: StartService,
    systemd: Systemd,
) -> None:
    service = start_service(shared_dir)
    assert systemd.next() == "READY=1"
    edit(shared_dir, "maxFileSize=100\ndurability=none of these\n")
    reload(service, systemd)
    service.wait_line("Nothing is changed, since the new configuration cannot work")
    FileSender(link, segment_size=SEGMENT).send(make_file(SEGMENT))
    assert service.terminate() == 0


def test_a_configuration_with_which_it_does_not_come_up_is_left(
    broker: Broker,
    shared_dir: Path,
    link: Link,
    make_file: MakeFile,
    start_service: StartService,
    systemd: Systemd,
) -> None:
    sooner = "from txstore.dxl import serving; serving.COMES_UP = 1.0"
    service = start_service(shared_dir, first=sooner)
    assert systemd.next() == "READY=1"
    path = shared_dir / "dxlclient.config"
    path.write_text(path.read_text().replace(f";{broker.port};", ";9;"))
    reload(service, systemd)
    service.wait_line("It goes on as before: with the new configuration it did not come up")
    FileSender(link).send(make_file(10))
    assert service.terminate() == 0


def test_a_storage_that_is_gone_by_then_is_said(
    shared_dir: Path, storage: Path, start_service: StartService, systemd: Systemd
) -> None:
    service = start_service(shared_dir)
    assert systemd.next() == "READY=1"
    (storage / ".workdir" / "journal.db").write_bytes(b"")
    reload(service, systemd)
    service.wait_line("It goes on as before: the new configuration cannot work: ")


LOGGING = """
[loggers]
keys=root
[handlers]
keys=file
[formatters]
keys=plain
[logger_root]
level=INFO
handlers=file
[handler_file]
class=FileHandler
formatter=plain
args=({path!r}, "a")
[formatter_plain]
format=%(process)d %(message)s
"""


@alone_and_supervised
def test_logs_that_were_moved_away_are_opened_anew(
    shared_dir: Path,
    tmp_path: Path,
    start_service: StartService,
    systemd: Systemd,
    options: list[str],
) -> None:
    log, moved = tmp_path / "log", tmp_path / "moved"
    (shared_dir / "logging.config").write_text(LOGGING.format(path=str(log)))
    service = start_service(shared_dir, *options)
    assert systemd.next() == "READY=1"
    processes = {line.split()[0] for line in log.read_text().splitlines()}
    log.rename(moved)
    reload(service, systemd, whole=True)
    assert "Serving" in moved.read_text()
    assert "The logs were opened anew" in log.read_text()
    wait_until(
        lambda: {line.split()[0] for line in log.read_text().splitlines()} == processes,
        "all processes write to the new one",
    )
    assert service.terminate() == 0


def test_a_worker_that_takes_no_configuration_is_killed(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    sleeping = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with ours, theirs, subprocess.Popen(sleeping, stdin=subprocess.PIPE) as process:
        ours.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                ours.send(b"x" * 1024)
        worker = _Worker(1, process, ours)
        config = ServiceConfig(str(tmp_path), str(tmp_path / "storage"))
        Supervisor(config, 1, Herald(lambda: None), Logs())._give(worker)
        assert process.wait(PATIENCE) == -signal.SIGKILL
        assert worker.killed
