"""Our sender goes on after anything, and what arrives is bit for bit what was sent."""

from __future__ import annotations

import filecmp
import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fabric_broker import PATIENCE, Broker, MakeFile, StartService, full_only

from txstore.dxl import (
    FileChangedError,
    FileSender,
    FileTransferService,
    GaveUpError,
    InterruptedSendError,
    Link,
    RemoteError,
    SendProgress,
)
from txstore.dxl.protocol import STORE_TOPIC

SEGMENT = 16 * 1024

SENDER = """
import sys
from txstore.dxl import FileSender, Link

config_dir, path, segment_size, halt_at = sys.argv[1:]

def progress(now):
    print(now.file_id, now.sent, now.resumed_from, flush=True)
    if now.sent >= int(halt_at):
        sys.stdin.read()

with Link(config_dir, answer_timeout=2.0, retry_for=60.0) as link:
    print(FileSender(link, segment_size=int(segment_size)).send(path, progress=progress))
"""

StoreHandler = Callable[[Any], Any]


def at(offset: int, act: Callable[[], object]) -> Callable[[SendProgress], None]:
    """A progress callback that acts once, as soon as the store has ``offset`` bytes."""
    acted = threading.Event()

    def progress(now: SendProgress) -> None:
        if now.sent >= offset and not acted.is_set():
            acted.set()
            act()

    return progress


def wrapped(change: Callable[[StoreHandler], StoreHandler]) -> Callable[[Any], Any]:
    """Change what a service answers on the store topic."""
    return lambda handlers: {**handlers, STORE_TOPIC: change(handlers[STORE_TOPIC])}


@pytest.mark.usefixtures("service")
def test_sends(link: Link, storage: Path, make_file: MakeFile) -> None:
    for size in (0, 1, SEGMENT, 3 * SEGMENT, 3 * SEGMENT + 5):
        path = make_file(size)
        progress: list[SendProgress] = []
        sent = FileSender(link, segment_size=SEGMENT).send(path, "sub/stored.bin", progress.append)
        assert (storage / "sub/stored.bin").read_bytes() == path.read_bytes()
        assert sent.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        segments = max(-(-size // SEGMENT), 1)
        assert (sent.size, sent.segments, sent.resumed_from) == (size, segments, 0)
        seen = [now.sent for now in progress]
        assert (seen[0], seen[-1]) == (0, size)
        assert seen == sorted(seen)


@pytest.mark.usefixtures("service")
def test_automatic_segments_are_as_large_as_a_dxl_broker_takes(
    link: Link, storage: Path, make_file: MakeFile
) -> None:
    path = make_file(3_000_000)
    assert FileSender(link).send(path).segments == 3
    assert (storage / path.name).read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("service")
def test_automatic_segments_shrink_until_they_get_through(
    broker: Broker, client_dir: Path, storage: Path, make_file: MakeFile
) -> None:
    path = make_file(1_500_000)
    with (
        broker.restarted_with("message_size_limit 400000\n"),
        Link(client_dir, answer_timeout=1.0, retry_for=60.0) as link,
    ):
        sent = FileSender(link).send(path)
    assert (storage / path.name).read_bytes() == path.read_bytes()
    assert sent.segments == 6


def test_a_killed_sender_started_again_goes_on(
    service: FileTransferService, client_dir: Path, storage: Path, make_file: MakeFile
) -> None:
    assert service.ready.is_set()
    path = make_file(10 * SEGMENT + 5)
    command = [sys.executable, "-W", "ignore", "-c", SENDER, str(client_dir), str(path)]
    for halt_at in (3 * SEGMENT, 7 * SEGMENT):
        with subprocess.Popen(
            [*command, str(SEGMENT), str(halt_at)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as sender:
            assert sender.stdout is not None
            for line in sender.stdout:
                if int(line.split()[1]) >= halt_at:
                    break
            sender.kill()
        assert not (storage / path.name).exists()
    # Another size of segments is no hindrance.
    with Link(client_dir, answer_timeout=2.0, retry_for=60.0) as link:
        sent = FileSender(link, segment_size=SEGMENT // 2).send(path)
    assert (sent.resumed_from, sent.segments) == (7 * SEGMENT, 7)
    assert (storage / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("lost", [1, 2, 4])
def test_a_lost_answer_is_asked_for_again(
    service_dir: Path, link: Link, storage: Path, make_file: MakeFile, lost: int
) -> None:
    segments = 4
    left = {lost: 2}

    def lose(store: StoreHandler) -> StoreHandler:
        def handler(message: Any) -> Any:
            answer = store(message)
            number = int(message.other_fields["segment_number"])
            if left.get(number):
                left[number] -= 1
                raise ConnectionError("this answer is lost")
            return answer

        return handler

    link.answer_timeout = 0.5
    path = make_file(segments * SEGMENT)
    with FileTransferService(service_dir, wrap=wrapped(lose)) as service:
        assert service.run(PATIENCE)
        sent = FileSender(link, segment_size=SEGMENT).send(path)
    assert left == {lost: 0}
    assert sent.segments == segments
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_the_answer_that_the_file_is_stored_is_lost_and_the_sender_with_it(
    service_dir: Path, link: Link, storage: Path, make_file: MakeFile
) -> None:
    def interrupt(store: StoreHandler) -> StoreHandler:
        def handler(message: Any) -> Any:
            answer = store(message)
            if "result" in message.other_fields:
                link.stop.set()
                raise ConnectionError("this answer is lost")
            return answer

        return handler

    path = make_file(3 * SEGMENT)
    with FileTransferService(service_dir, wrap=wrapped(interrupt)) as service:
        assert service.run(PATIENCE)
        with pytest.raises(InterruptedSendError):
            FileSender(link, segment_size=SEGMENT).send(path)
        link.stop.clear()
        stored = (storage / path.name).stat()
        sent = FileSender(link, segment_size=SEGMENT).send(path)
    assert (sent.segments, sent.size) == (0, path.stat().st_size)
    now = (storage / path.name).stat()
    assert (now.st_ino, now.st_mtime_ns) == (stored.st_ino, stored.st_mtime_ns), "stored once"
    assert (storage / path.name).read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("service")
def test_a_stored_file_that_was_replaced_is_sent_again(
    link: Link, storage: Path, make_file: MakeFile
) -> None:
    path = make_file(3 * SEGMENT)
    sender = FileSender(link, segment_size=SEGMENT)
    first = sender.send(path)
    (storage / path.name).write_bytes(b"something else")
    second = sender.send(path)
    assert second.segments == 3
    assert second.file_id != first.file_id
    assert (storage / path.name).read_bytes() == path.read_bytes()
    (storage / path.name).unlink()
    assert sender.send(path).segments == 3
    assert (storage / path.name).read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("service")
def test_other_bytes_under_its_id_are_left_alone(
    link: Link, storage: Path, make_file: MakeFile
) -> None:
    path = make_file(3 * SEGMENT)
    ids: list[str] = []

    def stop(now: SendProgress) -> None:
        ids.append(now.file_id)
        link.stop.set()

    sender = FileSender(link, segment_size=SEGMENT)
    with pytest.raises(InterruptedSendError):
        sender.send(path, progress=stop)
    link.stop.clear()
    link.ask(STORE_TOPIC, b"not of this file", {"segment_number": "1", "file_id": ids[0]})
    sent = sender.send(path)
    assert sent.file_id != ids[0]
    assert (storage / path.name).read_bytes() == path.read_bytes()
    assert sender.status(ids[0]).segments_received == 1


@pytest.mark.usefixtures("service")
def test_a_file_that_changes_on_the_way_is_not_stored(
    link: Link, storage: Path, make_file: MakeFile
) -> None:
    path = make_file(4 * SEGMENT)
    sender = FileSender(link, segment_size=SEGMENT)
    with pytest.raises(FileChangedError):
        sender.send(path, progress=at(2 * SEGMENT, lambda: path.write_bytes(b"x" * 4 * SEGMENT)))
    assert not (storage / path.name).exists()
    sender.send(path)
    assert (storage / path.name).read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("service")
def test_refusals_are_said_at_once(link: Link, storage: Path, make_file: MakeFile) -> None:
    with pytest.raises(RemoteError, match="outside the storage"):
        FileSender(link).send(make_file(100), "../out.bin")
    assert not (storage.parent / "out.bin").exists()


@pytest.mark.usefixtures("service")
def test_stop_keeps_and_cancel_drops(link: Link, storage: Path, make_file: MakeFile) -> None:
    path = make_file(5 * SEGMENT)
    sender = FileSender(link, segment_size=SEGMENT)
    ids: list[str] = []

    def stop(now: SendProgress) -> None:
        ids.append(now.file_id)
        if now.sent == 3 * SEGMENT:
            link.stop.set()

    with pytest.raises(InterruptedSendError):
        sender.send(path, progress=stop)
    link.stop.clear()
    kept = sender.status(ids[0])
    assert (kept.state, kept.segments_received) == ("receiving", 3)
    assert (kept.bytes_received, kept.sha256) == (
        3 * SEGMENT,
        hashlib.sha256(path.read_bytes()[: 3 * SEGMENT]).hexdigest(),
    )
    assert sender.cancel(ids[0]) == 3
    assert sender.status(ids[0]).state == "unknown"
    assert sender.cancel(ids[0]) == 0
    assert list(storage.rglob("*.bin")) == []


def test_gives_up_when_nobody_serves(client_dir: Path, make_file: MakeFile) -> None:
    notices: list[str] = []
    with (
        Link(client_dir, answer_timeout=0.2, retry_for=1.0, notice=notices.append) as link,
        pytest.raises(GaveUpError, match="nothing went forward for 1 s"),
    ):
        FileSender(link).send(make_file(100))
    assert notices


def test_the_service_is_killed_and_started_again_on_the_way(
    service_dir: Path, link: Link, storage: Path, make_file: MakeFile, start_service: StartService
) -> None:
    services = [start_service(service_dir)]

    def kill() -> None:
        services[0].kill()
        services.append(start_service(service_dir, wait=False))

    path = make_file(12 * SEGMENT)
    sent = FileSender(link, segment_size=SEGMENT).send(path, progress=at(5 * SEGMENT, kill))
    assert (storage / path.name).read_bytes() == path.read_bytes()
    assert sent.segments == 12


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("away", [0.0, 1.5])
def test_the_broker_is_stopped_and_started_on_the_way(
    broker: Broker, link: Link, storage: Path, make_file: MakeFile, away: float
) -> None:
    path = make_file(12 * SEGMENT)
    starting = threading.Timer(away, broker.start)

    def stop() -> None:
        broker.stop()
        starting.start()

    sent = FileSender(link, segment_size=SEGMENT).send(path, progress=at(5 * SEGMENT, stop))
    starting.join(PATIENCE)
    assert (storage / path.name).read_bytes() == path.read_bytes()
    assert sent.segments == 12


@pytest.mark.usefixtures("service")
def test_twenty_senders_at_once(client_dir: Path, storage: Path, make_file: MakeFile) -> None:
    paths = [make_file(5 * SEGMENT + number, f"{number}.bin") for number in range(20)]

    def send(path: Path) -> None:
        with Link(client_dir, answer_timeout=10.0, retry_for=60.0) as link:
            FileSender(link, segment_size=SEGMENT).send(path)

    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(send, paths))
    for path in paths:
        assert (storage / path.name).read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("sizes", [(SEGMENT, SEGMENT), (SEGMENT, SEGMENT // 3)])
def test_two_senders_of_the_same_file_at_once(
    client_dir: Path, storage: Path, make_file: MakeFile, sizes: tuple[int, int]
) -> None:
    path = make_file(8 * SEGMENT)
    together = threading.Barrier(2)

    def send(size: int) -> None:
        with Link(client_dir, answer_timeout=10.0, retry_for=60.0) as link:
            together.wait(PATIENCE)
            FileSender(link, segment_size=size).send(path)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(send, sizes))
    assert (storage / path.name).read_bytes() == path.read_bytes()


@full_only
def test_a_file_of_200_mb(
    service_dir: Path, link: Link, storage: Path, make_file: MakeFile, start_service: StartService
) -> None:
    services = [start_service(service_dir)]

    def kill() -> None:
        services[0].kill()
        services.append(start_service(service_dir, wait=False))

    link.answer_timeout = 10.0
    path = make_file(200_000_000)
    FileSender(link).send(path, progress=at(100_000_000, kill))
    assert filecmp.cmp(storage / path.name, path, shallow=False)
