"""Listing and getting back, within the storage's borders, resumable, and never a mixture."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fabric_broker import PATIENCE, Broker, MakeFile, Registry, StartService

from txstore.dxl import (
    FileChangedError,
    FileFetcher,
    FileSender,
    FileTransferService,
    InterruptedSendError,
    Link,
    RemoteError,
)
from txstore.dxl.protocol import Topics

SEGMENT = 16 * 1024


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def service(
    fabric: tuple[Broker, Registry], storage: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FileTransferService]:
    folder = tmp_path_factory.mktemp("service") / "config"
    fabric[0].start()
    with FileTransferService(fabric[0].config_dir(folder, {"storageDir": storage})) as service:
        assert service.run(PATIENCE)
        yield service
        assert service.stop()


def parts(folder: Path) -> list[Path]:
    return list(folder.glob(".*.txstore-part"))


@pytest.mark.usefixtures("service")
def test_lists_what_is_stored_in_pages(link: Link, storage: Path, make_file: MakeFile) -> None:
    sender = FileSender(link)
    sent = {
        name: sender.send(make_file(size, name.replace("/", "-")), name)
        for size, name in ((0, "empty"), (10, "a.txt"), (20, "a/x"), (30, "a/y/z"), (40, "b"))
    }
    (storage / "by hand").write_bytes(b"not through the store")
    (storage / "link").symlink_to("a.txt")
    (storage / os.fsdecode(b"\xff")).write_bytes(b"no UTF-8")
    for page in (1, 2, 1000):
        listed = list(FileFetcher(link).files(page))
        assert [file.name for file in listed] == [
            *("a/x", "a/y/z", "a.txt", "b", "by hand", "empty", os.fsdecode(b"\xff")),
        ]
        for file in listed:
            found = (storage / file.name).stat()
            assert (file.size, file.mtime_ns) == (found.st_size, found.st_mtime_ns)
            if file.name in sent:
                assert file.sha256 == sent[file.name].sha256
            else:
                assert file.sha256 is None


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _rewrite(path: Path) -> None:
    before = path.stat()
    # A file system's clock ticks every few milliseconds only.
    while path.stat().st_mtime_ns == before.st_mtime_ns:
        with path.open("r+b") as file:
            file.write(b"x" * before.st_size)


def _replace_in_time(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"x" * before.st_size)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [_append, _rewrite, _replace_in_time])
@pytest.mark.usefixtures("service")
def test_a_file_changed_by_hand_is_listed_without_a_hash_and_got_with_its_own(
    link: Link,
    storage: Path,
    tmp_path: Path,
    make_file: MakeFile,
    change: Callable[[Path], None],
) -> None:
    sender, fetcher = FileSender(link), FileFetcher(link)
    sent = {name: sender.send(make_file(1000, name)).sha256 for name in ("changed", "kept")}
    assert sent.items() <= {file.name: file.sha256 for file in fetcher.files()}.items()
    change(storage / "changed")
    listed = {file.name: file.sha256 for file in fetcher.files()}
    assert (listed["changed"], listed["kept"]) == (None, sent["kept"])
    version = fetcher.get("changed", tmp_path / "back")
    now = (storage / "changed").read_bytes()
    assert version.sha256 == hashlib.sha256(now).hexdigest() != sent["changed"]
    assert (tmp_path / "back").read_bytes() == now


@pytest.mark.usefixtures("service")
def test_gets_a_file_back(link: Link, tmp_path: Path, make_file: MakeFile) -> None:
    target = tmp_path / "back"
    for size in (0, 1, SEGMENT, 3 * SEGMENT + 5, 2_500_000):
        path = make_file(size)
        FileSender(link).send(path, "sub/stored")
        target.write_bytes(b"what was there before")
        version = FileFetcher(link).get("sub/stored", target)
        assert target.read_bytes() == path.read_bytes()
        assert version.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert parts(tmp_path) == []


@pytest.mark.usefixtures("service")
def test_goes_on_where_it_stopped(link: Link, tmp_path: Path, make_file: MakeFile) -> None:
    path = make_file(5 * SEGMENT)
    FileSender(link).send(path)
    target = tmp_path / "back"

    def stop(done: int, _size: int) -> None:
        if done == 3 * SEGMENT:
            link.stop.set()

    with pytest.raises(InterruptedSendError):
        FileFetcher(link, segment_size=SEGMENT).get(path.name, target, stop)
    link.stop.clear()
    assert not target.exists()
    seen: list[int] = []
    FileFetcher(link, segment_size=SEGMENT).get(
        path.name, target, lambda done, _size: seen.append(done)
    )
    assert seen[0] == 3 * SEGMENT
    assert target.read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("service")
def test_a_part_that_was_spoilt_is_an_error_and_gone(
    link: Link, tmp_path: Path, make_file: MakeFile
) -> None:
    path = make_file(3 * SEGMENT)
    FileSender(link).send(path)
    fetcher = FileFetcher(link, segment_size=SEGMENT)

    def spoil(done: int, _size: int) -> None:
        if done == SEGMENT:
            (part,) = parts(tmp_path)
            part.write_bytes(b"x" * SEGMENT)
            link.stop.set()

    with pytest.raises(InterruptedSendError):
        fetcher.get(path.name, tmp_path / "back", spoil)
    link.stop.clear()
    with pytest.raises(FileChangedError):
        fetcher.get(path.name, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    fetcher.get(path.name, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("service")
def test_a_file_replaced_on_the_way_is_an_error(
    link: Link, storage: Path, tmp_path: Path, make_file: MakeFile
) -> None:
    path = make_file(4 * SEGMENT)
    FileSender(link).send(path)

    def replace(done: int, _size: int) -> None:
        if done == 2 * SEGMENT:
            other = tmp_path / "other"
            other.write_bytes(os.urandom(4 * SEGMENT))
            other.replace(storage / path.name)

    with pytest.raises(FileChangedError):
        FileFetcher(link, segment_size=SEGMENT).get(path.name, tmp_path / "back", replace)
    assert not (tmp_path / "back").exists()
    assert parts(tmp_path) == []


@pytest.mark.usefixtures("service")
def test_nothing_beyond_the_borders(link: Link, storage: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (storage / "out").symlink_to(tmp_path)
    (storage / "to-secret").symlink_to("../secret")
    (storage / "loop").symlink_to("loop")
    fetcher = FileFetcher(link)
    for name in (
        *("../secret", "/etc/passwd", "out/secret", "to-secret", "loop", "a/../.."),
        *(".workdir/journal.db", ".txstore/staging", str(tmp_path / "secret")),
    ):
        with pytest.raises(RemoteError, match="is refused"):
            fetcher.get(name, tmp_path / "back")
        assert not (tmp_path / "back").exists()
    assert not any("secret" in file.name for file in fetcher.files())


@pytest.mark.usefixtures("service")
def test_what_is_no_file_is_not_found(link: Link, storage: Path, tmp_path: Path) -> None:
    (storage / "folder").mkdir()
    os.mkfifo(storage / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(storage / "socket"))
    for name in ("nothing", "folder", "folder/nothing", "pipe", "socket"):
        with pytest.raises(RemoteError, match="No file") as caught:
            FileFetcher(link).get(name, tmp_path / "back")
        assert caught.value.kind == "not_found"


def test_goes_on_with_another_worker(
    broker: Broker,
    tmp_path: Path,
    storage: Path,
    link: Link,
    make_file: MakeFile,
    start_service: StartService,
) -> None:
    folder = broker.config_dir(
        tmp_path / "service",
        {"storageDir": storage, "shareGroup": "workers", "storeTopic": "/shared"},
    )
    services = [start_service(folder), start_service(folder)]
    path = make_file(8 * SEGMENT)
    FileSender(link, store_topic="/shared").send(path)

    def kill(done: int, _size: int) -> None:
        if done == 4 * SEGMENT:
            services[0].kill()

    fetcher = FileFetcher(link, store_topic="/shared", segment_size=SEGMENT)
    fetcher.get(path.name, tmp_path / "back", kill)
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("service")
def test_bad_requests_are_refused(link: Link) -> None:
    topics = Topics()
    for topic, request in (
        (topics.status, {}),
        (topics.status, {"file_id": 3}),
        (topics.listing, {"after": 3}),
        (topics.listing, {"limit": -1}),
        (topics.get, {}),
        (topics.get, {"name": "a", "offset": -1}),
        (topics.get, {"name": "a\0b"}),
        (topics.get, {"name": "a", "offset": 2**64}),
        (topics.get, []),
    ):
        with pytest.raises(RemoteError) as caught:
            link.once(topic, json.dumps(request).encode())
        assert caught.value.kind == "refused", request


@pytest.mark.usefixtures("service")
def test_an_unknown_transfer_is_an_answer(link: Link) -> None:
    status = FileSender(link).status("never heard of")
    assert (status.state, status.segments_received, status.bytes_received) == ("unknown", 0, 0)


def test_limits(broker: Broker, tmp_path: Path, link: Link) -> None:
    general: dict[str, object] = {"storageDir": tmp_path / "limited", "storeTopic": "/limited"}
    general.update(maxFileSize="1K", maxTransfers=2)
    with FileTransferService(broker.config_dir(tmp_path / "service", general)) as service:
        assert service.run(PATIENCE)

        def segment(file_id: str, number: int, size: int) -> None:
            fields = {"file_id": file_id, "segment_number": str(number)}
            link.once("/limited", b"x" * size, fields)

        segment("one", 1, 1000)
        with pytest.raises(RemoteError, match="at most 1024 bytes"):
            segment("one", 2, 25)
        with pytest.raises(RemoteError, match="at most 1024 bytes"):
            link.once("/limited", b"x" * 25, {"file_id": "one", "segment_number": "+02"})
        segment("one", 2, 24)
        segment("one", 2, 24)
        segment("two", 1, 1)
        segment("two", 1, 1)
        with pytest.raises(RemoteError, match="2 transfers are under way"):
            segment("three", 1, 1)
        assert FileSender(link, store_topic="/limited").cancel("one") == 2
        segment("three", 1, 1)
