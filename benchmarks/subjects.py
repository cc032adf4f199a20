"""The stores and bare loops that are timed."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dxlfiletransferclient.store import FileStoreManager as UpstreamManager

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.options import Level

KIB, MIB = 1024, 1024 * 1024

#: A frame of SQLite's log: a header and a page of 4 KiB.
_FRAME = 24 + 4096
_LOG = 4 * MIB
#: Different payloads in turn: SQLite skips an update that changes nothing.
_PAYLOADS = 5


@dataclass
class Message:
    """What the stores read of a ``dxlclient.message.Message``."""

    payload: bytes
    other_fields: dict[str, str] = field(default_factory=dict)


class Store(Protocol):
    """What txstore and upstream have in common."""

    def store_segment(self, message: Any) -> Any: ...


def txstore(folder: Path, level: Level, disk: Disk | None = None) -> FileStoreManager:
    return FileStoreManager(folder, durability=level, disk=disk)


def upstream(folder: Path) -> Store:
    store: Store = UpstreamManager(str(folder))
    return store


def close(store: Store) -> None:
    """Close a store, if it is one that can be closed."""
    if isinstance(store, FileStoreManager):
        store.close()


def plain(file_id: str, number: int, payload: bytes) -> Message:
    return Message(payload, {"file_id": file_id, "segment_number": str(number)})


def last(file_id: str, number: int, payload: bytes, name: str, size: int, sha256: str) -> Message:
    message = plain(file_id, number, payload)
    message.other_fields.update(
        {"result": "store", "name": name, "size": str(size), "hash_sha256": sha256}
    )
    return message


def cancel(file_id: str, number: int) -> Message:
    return Message(b"", {"file_id": file_id, "segment_number": str(number), "result": "cancel"})


def payloads(size: int) -> list[bytes]:
    return [os.urandom(size) for _ in range(_PAYLOADS)]


class Calls:
    """Calls of one function, each timed by itself."""

    def __init__(self, call: Callable[[], float], batch: int = 2) -> None:
        self._call, self._batch = call, batch

    def run(self) -> list[float]:
        return [self._call() for _ in range(self._batch)]

    def close(self) -> None:
        pass


class Flush:
    """The unit: one 4 KiB overwrite and its flush."""

    def __init__(self, folder: Path, batch: int = 4) -> None:
        self._fd = os.open(folder / "unit", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        self._batch = batch
        os.pwrite(self._fd, bytes(64 * KIB), 0)
        os.fsync(self._fd)

    def run(self) -> list[float]:
        times = []
        for _ in range(self._batch):
            page = os.urandom(16) * 256
            start = time.perf_counter()
            os.pwrite(self._fd, page, 0)
            os.fdatasync(self._fd)
            times.append(time.perf_counter() - start)
        return times

    def close(self) -> None:
        os.close(self._fd)


class Segments:
    """Plain segments of one transfer after the other; opening and cancelling are not timed.

    :param length: bytes after which the next transfer begins
    :param going_on: id of a transfer of one segment to go on with
    """

    def __init__(
        self,
        store: Store,
        size: int,
        batch: int,
        length: int = 64 * MIB,
        going_on: str | None = None,
    ) -> None:
        self._store, self._batch = store, batch
        self._payloads, self._most = payloads(size), max(2, length // size)
        if going_on is None:
            self._begin()
        else:
            self._file_id, self._number = going_on, 1

    def _begin(self) -> None:
        self._file_id, self._number = uuid.uuid4().hex, 1
        self._store.store_segment(plain(self._file_id, 1, self._payloads[0]))

    def run(self) -> list[float]:
        return [self.step() for _ in range(self._batch)]

    def step(self) -> float:
        """The seconds that one segment took."""
        if self._number >= self._most:
            self._store.store_segment(cancel(self._file_id, self._number + 1))
            self._begin()
        self._number += 1
        payload = self._payloads[self._number % _PAYLOADS]
        message = plain(self._file_id, self._number, payload)
        start = time.perf_counter()
        self._store.store_segment(message)
        return time.perf_counter() - start

    def close(self) -> None:
        close(self._store)


class FloorSegments:
    """The least that a segment can cost: write, hash, and at level ``segment`` flush the bytes and
    a journal's frame."""

    def __init__(self, folder: Path, size: int, batch: int, level: Level) -> None:
        folder.mkdir()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._fd, self._log = os.open(folder / "bytes", flags), os.open(folder / "log", flags)
        os.pwrite(self._log, bytes(_LOG), 0)
        os.fsync(self._log)
        self._payloads, self._size, self._batch = payloads(size), size, batch
        self._flushes, self._hash = level == "segment", hashlib.sha256()
        self._offset = self._at = self._count = 0

    def run(self) -> list[float]:
        return [self._step() for _ in range(self._batch)]

    def _step(self) -> float:
        if self._offset >= 64 * MIB:
            os.ftruncate(self._fd, 0)
            self._offset = 0
        self._count += 1
        payload, frame = (
            self._payloads[self._count % _PAYLOADS],
            os.urandom(16) + bytes(_FRAME - 16),
        )
        start = time.perf_counter()
        os.pwrite(self._fd, payload, self._offset)
        self._hash.update(payload)
        if self._flushes:
            os.fdatasync(self._fd)
            os.pwrite(self._log, frame, self._at)
            os.fdatasync(self._log)
        taken = time.perf_counter() - start
        self._offset += self._size
        self._at = (self._at + _FRAME) % (_LOG - _FRAME)
        return taken

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._log)


class Files:
    """Whole files, each under a name of its own; one operation is one file.

    :param after: done, within the time, when a file has been stored under a path
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        size: int,
        segment: int,
        batch: int,
        after: Callable[[Path], None] | None = None,
    ) -> None:
        self._store, self._folder, self._batch, self._after = store, folder, batch, after
        self._data, self._segment, self._count = bytearray(os.urandom(size)), segment, 0
        self._name = uuid.uuid4().hex[:8]

    def run(self) -> list[float]:
        return [self.step() for _ in range(self._batch)]

    def step(self) -> float:
        """The seconds that one file took."""
        self._count += 1
        self._data[:8] = self._count.to_bytes(8, "big")  # no two files are the same
        name = f"{self._name}-{self._count % 64}"
        messages = self._messages(name)
        start = time.perf_counter()
        for message in messages:
            self._store.store_segment(message)
        if self._after is not None:
            self._after(self._folder / name)
        return time.perf_counter() - start

    def _messages(self, name: str) -> list[Message]:
        data, size = bytes(self._data), len(self._data)
        parts = [data[at : at + self._segment] for at in range(0, size, self._segment)]
        file_id = uuid.uuid4().hex
        messages = [plain(file_id, number, part) for number, part in enumerate(parts[:-1], 1)]
        sha256 = hashlib.sha256(data).hexdigest()
        return [*messages, last(file_id, len(parts), parts[-1], name, size, sha256)]

    def close(self) -> None:
        close(self._store)


class FloorFiles:
    """The least that a file of one segment can cost: made, written, renamed; with ``flushes`` the
    file before and its folder after."""

    def __init__(self, folder: Path, size: int, batch: int, flushes: bool) -> None:
        (folder / "staging").mkdir(parents=True)
        self._folder, self._batch, self._flushes = folder, batch, flushes
        self._data, self._count = bytearray(os.urandom(size)), 0
        self._target = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def run(self) -> list[float]:
        return [self._step() for _ in range(self._batch)]

    def _step(self) -> float:
        self._count += 1
        self._data[:8] = self._count.to_bytes(8, "big")
        data = bytes(self._data)
        staged = self._folder / "staging" / str(self._count)
        target = self._folder / f"file-{self._count % 64}"
        start = time.perf_counter()
        fd = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        os.pwrite(fd, data, 0)
        hashlib.sha256(data).digest()
        if self._flushes:
            os.fdatasync(fd)
        os.close(fd)
        os.replace(staged, target)
        if self._flushes:
            os.fsync(self._target)
        return time.perf_counter() - start

    def close(self) -> None:
        os.close(self._target)


class SameFlushes:
    """After upstream has stored a file: what a level ``file`` store flushes for one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._log = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        os.pwrite(self._log, bytes(_LOG), 0)
        os.fsync(self._log)
        self._at = 0

    def __call__(self, path: Path) -> None:
        _flush(path, os.O_RDONLY)
        self._commit()  # that it is going to be published
        _flush(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        _flush(path.parent / ".workdir", os.O_RDONLY | os.O_DIRECTORY)
        self._commit()  # that it was

    def _commit(self) -> None:
        os.pwrite(self._log, os.urandom(16) + bytes(_FRAME - 16), self._at)
        os.fdatasync(self._log)
        self._at = (self._at + _FRAME) % (_LOG - _FRAME)

    def close(self) -> None:
        os.close(self._log)


def _flush(path: Path, flags: int) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
