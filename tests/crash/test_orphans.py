"""Who finds a staging file without a row looks again when it has the lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from crash.oracle import broken
from crash.steps import message
from crash.workloads import A, B
from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.local.lockfile import transfer_byte

PATIENCE = 20.0


class Slow(Disk):
    """Stops where a staging file is there and its row is not."""

    def __init__(self) -> None:
        self.here, self.go_on = threading.Event(), threading.Event()

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if "/staging/" in os.readlink(f"/proc/self/fd/{fd}"):
            self.here.set()
            assert self.go_on.wait(PATIENCE)
        return super().pwrite(fd, data, offset)


class Sweeper(Disk):
    """Something happens before it takes a certain lock."""

    lock = -1
    meanwhile: Callable[[], None]

    def try_lock(self, fd: int, byte: int) -> bool:
        if byte == self.lock:
            self.lock = -1
            self.meanwhile()
        return super().try_lock(fd, byte)


def test_a_file_whose_row_came_meanwhile_is_no_orphan(tmp_path: Path) -> None:
    slow, sweeper = Slow(), Sweeper()
    with (
        FileStoreManager(tmp_path, disk=slow) as first,
        FileStoreManager(tmp_path, disk=sweeper) as second,
    ):
        other = threading.Thread(target=first.store_segment, args=(message(A, 1),))

        def meanwhile() -> None:
            slow.go_on.set()
            other.join()

        other.start()
        assert slow.here.wait(PATIENCE)
        [name] = os.listdir(tmp_path / ".workdir" / "staging")
        sweeper.meanwhile, sweeper.lock = meanwhile, transfer_byte(int(name[1:3], 16))
        second.store_segment(message(B, 1))
        assert sweeper.lock == -1
        try:
            first.store_segment(message(A, 2))
        except OSError as error:
            raise broken(1, f"an acked segment was swept: {error}") from error
