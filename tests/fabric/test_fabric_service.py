"""A service whose worker hangs, whose terminal goes, whose store is taken away, or that is idle."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import local_link
import pytest
from fabric_broker import (
    AS_IN_A_TERMINAL,
    PATIENCE,
    Broker,
    MakeFile,
    ServiceProcess,
    StartService,
    wait_until,
)
from local_link import Message

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.dxl import (
    FileSender,
    FileTransferService,
    GaveUpError,
    Link,
    NoAnswerError,
    ServiceConfig,
)
from txstore.dxl.handlers import StoreHandlers
from txstore.dxl.heartbeat import BEAT_EVERY
from txstore.dxl.protocol import STORE_TOPIC

SEGMENT = 16 * 1024
SUPPORT = str(Path(local_link.__file__).parent)

alone_and_supervised = pytest.mark.parametrize(
    "options", [[], ["--workers", "2"]], ids=["alone", "supervised"]
)


def sooner(seconds: float) -> str:
    """What a service begins with whose workers are to be killed earlier."""
    return f"from txstore.dxl import supervisor; supervisor.SILENCE = {seconds}"


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def worker(service: ServiceProcess, number: int) -> int:
    return int(service.wait_line(f"Worker {number} is process").split()[-1])


def test_a_worker_that_hangs_is_killed_and_started_again(
    shared_dir: Path, link: Link, storage: Path, make_file: MakeFile, start_service: StartService
) -> None:
    service = start_service(shared_dir, "--workers", "2", first=sooner(4.0))
    hung = worker(service, 1)
    os.kill(hung, signal.SIGSTOP)
    path = make_file(6 * SEGMENT)
    FileSender(link, segment_size=SEGMENT).send(path)
    service.wait_line(f"Worker 1 (process {hung}) has given no sign of life for 4 s; killing it")
    service.wait_line(f"Worker 1 (process {hung}) ended with code -9; starting it again")
    wait_until(
        lambda: sum("Worker 1 is process" in line for line in service.output) == 2,
        "worker 1 is started again",
    )
    assert (storage / path.name).read_bytes() == path.read_bytes()
    assert service.terminate() == 0
    assert not any("Worker 2" in line and "sign of life" in line for line in service.output)


@pytest.mark.parametrize("where", ["waiting", "in a round"])
def test_a_service_that_was_stopped_as_a_whole_kills_no_worker(
    shared_dir: Path, link: Link, make_file: MakeFile, start_service: StartService, where: str
) -> None:
    silence = 3.0
    first = sooner(silence)
    if where == "in a round":
        first += f"; import sys; sys.path.append({SUPPORT!r}); import stopped_in_a_round"
    service = start_service(shared_dir, "--workers", "2", first=first)
    if where == "waiting":
        os.killpg(service.pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(service.pid), "the supervisor is stopped")
    threading.Event().wait(silence + 1.5)  # it is the time that has to pass
    os.killpg(service.pid, signal.SIGCONT)
    FileSender(link, segment_size=SEGMENT).send(make_file(2 * SEGMENT))
    assert service.terminate() == 0
    assert not any("sign of life" in line for line in service.output), service.output


def test_a_worker_whose_requests_wait_for_the_disk_gives_signs_of_life(
    shared_dir: Path, link: Link
) -> None:
    asked, answer, rounds = threading.Event(), threading.Event(), threading.Semaphore(0)

    def blocked(_: Any) -> Any:
        asked.set()
        answer.wait(PATIENCE)
        raise OSError(errno.EIO, "at last")

    service = FileTransferService(
        shared_dir,
        wrap=lambda handlers: dict.fromkeys(handlers, blocked),
        on_round=rounds.release,
    )
    with service:
        assert service.run(PATIENCE)
        try:
            with pytest.raises(NoAnswerError):
                link.once(STORE_TOPIC, b"x", {"segment_number": "1"}, timeout=0.5)
            assert asked.is_set()
            while rounds.acquire(blocking=False):
                continue
            for _ in range(5):
                assert rounds.acquire(timeout=10 * BEAT_EVERY)
        finally:
            answer.set()


@alone_and_supervised
def test_a_terminal_that_goes_stops_it_cleanly(
    shared_dir: Path, start_service: StartService, options: list[str]
) -> None:
    terminal, end = os.openpty()
    # The first one that the leader of a session opens is the one of all of its processes.
    opening = f"import os; os.open({os.ttyname(end)!r}, os.O_RDWR); {AS_IN_A_TERMINAL}"
    service = start_service(shared_dir, *options, first=opening)
    os.close(end)
    os.close(terminal)
    assert service.wait() == 0, service.output
    assert any("Stopping" in line for line in service.output)


@alone_and_supervised
def test_a_terminal_that_goes_does_not_stop_what_was_started_with_nohup(
    shared_dir: Path,
    link: Link,
    make_file: MakeFile,
    start_service: StartService,
    options: list[str],
) -> None:
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    service = start_service(shared_dir, *options, first=ignore)
    os.killpg(service.pid, signal.SIGHUP)
    FileSender(link).send(make_file(10))
    assert service.terminate() == 0


@alone_and_supervised
@pytest.mark.parametrize("idle", [False, True], ids=["busy", "idle"])
def test_a_store_made_anew_under_it_ends_it_so_that_it_is_started_again(
    broker: Broker,
    tmp_path: Path,
    storage: Path,
    link: Link,
    make_file: MakeFile,
    start_service: StartService,
    options: list[str],
    idle: bool,
) -> None:
    general = {"storageDir": storage, "shareGroup": "g", "expireAfter": "2s" if idle else "7d"}
    folder = broker.config_dir(tmp_path / "service", general)
    service = start_service(folder, *options)
    path = make_file(10)
    FileSender(link).send(path)
    shutil.rmtree(storage)
    storage.mkdir()
    link.retry_for = 2.0
    if not idle:
        with pytest.raises(GaveUpError):
            FileSender(link).send(make_file(10, "other.bin"))
    assert service.wait() == 75, service.output
    (line, *_) = (line for line in service.output if "to be started again" in line)
    assert str(storage) in line
    again = start_service(folder, *options)
    link.retry_for = PATIENCE
    FileSender(link).send(path)
    assert (storage / path.name).read_bytes() == path.read_bytes()
    assert again.terminate() == 0


@alone_and_supervised
@pytest.mark.parametrize("both", [False, True], ids=["output", "output and errors"])
def test_it_serves_though_nothing_can_be_printed(
    shared_dir: Path, link: Link, make_file: MakeFile, options: list[str], both: bool
) -> None:
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "txstore", "serve", str(shared_dir), *options],
            stdout=full,
            stderr=full if both else subprocess.DEVNULL,
        )
    try:
        FileSender(link).send(make_file(10))
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()


def test_a_full_disk_is_logged_with_what_could_not_be_stored_and_where(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Filling(Disk):
        full = False

        def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().pwrite(fd, data, offset)

    disk = Filling()

    config = ServiceConfig(str(tmp_path), str(tmp_path / "storage"))
    fields = {"segment_number": "1", "file_id": "an id", "name": "a name"}
    with FileStoreManager(config.storage_dir, disk=disk) as manager:
        disk.full = True
        StoreHandlers(manager, config).store(Message(b"x", fields))
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    for part in ("'a name'", "'an id'", "segment '1'", "No space left", config.storage_dir):
        assert part in line


def test_an_idle_service_drops_what_has_expired(
    broker: Broker, tmp_path: Path, storage: Path, link: Link
) -> None:
    general = {"storageDir": storage, "shareGroup": "g", "expireAfter": "1s"}
    with FileTransferService(broker.config_dir(tmp_path / "service", general)) as service:
        assert service.run(PATIENCE)
        link.once(STORE_TOPIC, b"x", {"segment_number": "1", "file_id": "left"})
        with FileStoreManager(storage) as looking:
            wait_until(lambda: looking.transfers() == [], "it is dropped though nothing is asked")
        assert service.ready.is_set()
