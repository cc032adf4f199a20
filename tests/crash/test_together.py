"""Several workers at one transfer, or at one name, at the same moment: exactly one is first.

The moment is forced: whoever reaches the staged bytes waits there until the other has gone as far
as he can without the lock.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from crash.oracle import broken
from crash.steps import Upload, message, upload
from txstore import FileStoreManager
from txstore.disk import Disk

A = upload("a", "a.bin", 600, 700, 800)
OLD = upload("old", "same.bin", 1100, 1700)
NEW = upload("new", "same.bin", 900, 800)


class Meeting(Disk):
    """Lets two threads meet at a call, if both get there within a moment.

    :param renamed: set by the rename of the first to go on, which the other waits for after that
    """

    def __init__(
        self, call: str, barrier: threading.Barrier, renamed: threading.Event, *, first: bool
    ) -> None:
        self._call, self._barrier = call, barrier
        self._renamed, self._first = renamed, first
        self.met = False
        self.arrived = threading.Event()

    def _meet(self, call: str) -> None:
        if call != self._call or self.met:
            return
        self.arrived.set()
        with suppress(threading.BrokenBarrierError):  # the other waits for a lock, as it should
            self._barrier.wait(4.0)
            if call == "rename" and not self._first:
                self._renamed.wait(4.0)
        self.met = True

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        done = super().pwrite(fd, data, offset)
        if len(data) < 10_000:
            self._meet("pwrite")
        return done

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        if target != "none":
            self._meet("rename")
        super().rename(source, target, source_dir=source_dir, target_dir=target_dir)
        if self._first:
            self._renamed.set()


def _together(storage: Path, call: str, first: Upload, second: Upload, number: int) -> list[object]:
    barrier = threading.Barrier(2)
    # Who comes later is the first to go on.
    renamed = threading.Event()
    disks = [Meeting(call, barrier, renamed, first=first) for first in (False, True)]
    managers = [FileStoreManager(storage, disk=disk) for disk in disks]

    def send(index: int, what: Upload) -> object:
        try:
            return managers[index].store_segment(message(what, number)).segments_received
        except (ValueError, OSError) as error:
            return error

    try:
        with ThreadPoolExecutor(2) as pool:
            earlier = pool.submit(send, 0, first)
            assert disks[0].arrived.wait(20)
            later = pool.submit(send, 1, second)
            return [earlier.result(), later.result()]
    finally:
        for manager in managers:
            manager.close()


@pytest.mark.parametrize("number", [1, 2])
def test_one_segment_at_two_workers_is_taken_once(tmp_path: Path, number: int) -> None:
    storage = tmp_path / "storage"
    with FileStoreManager(storage) as manager:
        for before in range(1, number):
            manager.store_segment(message(A, before))
    told = _together(storage, "pwrite", A, A, number)
    if told != [number, number]:
        raise broken(7, f"one segment at two workers was answered {told}")
    with FileStoreManager(storage) as manager:
        (status,) = manager.transfers()
        if status.segments_received != number:
            raise broken(4, f"{number} segments were acked, {status.segments_received} are there")
        for after in range(number + 1, A.last + 1):
            manager.store_segment(message(A, after))
    if (storage / A.name).read_bytes() != A.content:
        raise broken(2, "the file is not whole")


def test_two_files_for_one_name_are_published_one_after_the_other(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    with FileStoreManager(storage) as manager:
        manager.store_segment(message(OLD, 1))
        manager.store_segment(message(NEW, 1))
    told = _together(storage, "rename", OLD, NEW, 2)
    if told != [2, 2]:
        raise broken(7, f"two files for one name were answered {told}")
    content = (storage / "same.bin").read_bytes()
    if content not in (OLD.content, NEW.content):
        raise broken(2, "the file is neither of the two, whole")
    with FileStoreManager(storage) as manager:
        for what in (OLD, NEW):
            manager.store_segment(message(what, 2))
        assert manager.transfers() == []
    if (storage / "same.bin").read_bytes() != content:
        raise broken(4, "a repeat came over a newer file")
